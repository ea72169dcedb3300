"""What a search found, as data that any process can show: hits with their rows, steps, seconds.

Nothing here needs a tower, so that a command that asks a server needs none either.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from cascade.calibrated.calibration import Candidates
from cascade.searching.steps import Step
from cascade.storing.rows import ImageRow

NOTHING_MATCHES = "nothing in here matches well"
"""What is said above hits of which none does."""


@dataclass(frozen=True)
class Found:
    """A hit, as `cascade.Hit` has it, and its row."""

    key: str
    score: float
    stage: int
    row: ImageRow | None = None
    probability: float | None = None


@dataclass(frozen=True)
class Wanted:
    """What is looked for, as text that goes from process to process.

    Attributes:
        name: what the query is called.
        texts: what is in the image.
        like: absolute paths of images that it is like.
        without: what is not in it.
    """

    name: str
    texts: Sequence[str] = ()
    like: Sequence[str] = ()
    without: Sequence[str] = ()


@dataclass(frozen=True)
class Terms:
    """How it is searched.

    Attributes:
        k: hits wanted.
        m: candidates handed from each stage to the next, "auto": as many as each query needs;
            None: as the collection has it.
        refined: whether the last stage also ranks whatever else it has encoded so far.
    """

    k: int = 10
    m: Candidates | None = None
    refined: bool = False


@dataclass(frozen=True)
class Answer:
    """What was found for one query.

    Attributes:
        query: what it is called.
        hits: best first.
        steps: what each stage did.
        opening: seconds to open the collection.
        embedding: seconds to embed the query, with the time to load what does.
        images: of the collection.
        matches: whether anything matches, as `cascade.Hits` has it.
    """

    query: str
    hits: Sequence[Found]
    steps: Sequence[Step] = field(default=())
    opening: float = 0.0
    embedding: float = 0.0
    images: int = 0
    matches: bool | None = None

    def as_entries(self) -> dict[str, Any]:
        """Itself in what JSON knows."""
        return asdict(self)

    @classmethod
    def of(cls, entries: Mapping[str, Any]) -> "Answer":
        """The answer that `as_entries` wrote.

        Raises:
            TypeError: the entries are others.
        """
        rows = [hit["row"] for hit in entries["hits"]]
        hits = [
            Found(**{**hit, "row": None if row is None else ImageRow(**row)})
            for hit, row in zip(entries["hits"], rows, strict=True)
        ]
        steps = [Step(**step) for step in entries["steps"]]
        return cls(**{**entries, "hits": hits, "steps": steps})
