"""All that the routes answer from."""

from dataclasses import dataclass

from cascade.serving.additions import Additions
from cascade.serving.background import Background
from cascade.serving.engine import Engine
from cascade.serving.limits import Limits
from cascade.serving.pictures import Pictures
from cascade.serving.sessions import Sessions
from cascade.serving.work import Slots


@dataclass(frozen=True)
class Served:
    """All that the API answers from; `sessions` is None where no token is needed."""

    engine: Engine
    pictures: Pictures
    additions: Additions
    limits: Limits
    slots: Slots
    background: Background
    sessions: Sessions | None = None
