"""The search runtime: stages ordered cheap to expensive, joined in a cascade that a user embeds.

Each name is imported, with what it needs, when it is first asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cascade.cascade import Cascade, Hit
    from cascade.cost import lifetime_speedup, query_speedup
    from cascade.images import UnreadableImage
    from cascade.resume import ResumedStage
    from cascade.stage import Stage
    from cascade.states import States

__all__ = [
    "Cascade",
    "Hit",
    "ResumedStage",
    "Stage",
    "States",
    "UnreadableImage",
    "lifetime_speedup",
    "query_speedup",
]

_ON_DEMAND = {
    "Cascade": "cascade.cascade",
    "Hit": "cascade.cascade",
    "ResumedStage": "cascade.resume",
    "Stage": "cascade.stage",
    "States": "cascade.states",
    "UnreadableImage": "cascade.images",
    "lifetime_speedup": "cascade.cost",
    "query_speedup": "cascade.cost",
}


def __getattr__(name: str) -> Any:
    if name not in _ON_DEMAND:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_ON_DEMAND[name]), name)
