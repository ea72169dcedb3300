"""The report of a run that was searched while it indexed.

Data alone, as `evaluation.reports.report`; `evaluation.reports.indexing.table` and
`figures.indexing` are made from it. Agreements are in percent, times in seconds.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from evaluation.measuring.values import Machine
from evaluation.reports import record
from evaluation.reports.record import RecordError

SCHEMA = 1
FILE = "report.json"


@dataclass(frozen=True)
class Rates:
    """Images a second of what indexing is made of, each alone on the idle machine.

    Attributes:
        photos: that it was timed on.
        decoding: reading, decoding and preparing for the first stage.
        encoding: by the first stage, from ready pixels.
    """

    photos: int
    decoding: float
    encoding: float

    @property
    def slower(self) -> float:
        """What indexing would reach if one cost nothing beside the other."""
        return min(self.decoding, self.encoding)

    @property
    def shared(self) -> float:
        """What it would reach if both keep all cores busy, and nothing else takes time."""
        return 1 / (1 / self.decoding + 1 / self.encoding)


@dataclass(frozen=True)
class Look:
    """One search of all queries.

    Attributes:
        first: seconds from the start of indexing to the answer of the first query.
        seconds: the same to the answer of the last.
        searching: seconds a query took, with the full tower's encoding of new candidates.
        images: that could be searched.
        encoded: of these, by the full tower.
        agreement: share of the finished state's top k that was found.
    """

    first: float
    seconds: float
    searching: float
    images: int
    encoded: int
    agreement: float


@dataclass(frozen=True)
class Indexing(record.Saved):
    """One run.

    Attributes:
        command: the command line that made it.
        queries: how many were asked at each look.
        k: results that are compared.
        m: candidates handed from the first stage to the full tower.
        images: in the end.
        skipped: photos that could not be read.
        nbytes: of the collection in the end.
        refine: share of the photos that the full tower encoded after indexing; None: none.
        rates: of the parts alone.
        looks: in the order of time; the last is the finished state.
        seed: for drawing the photos of `rates`.
        machine: where it was measured.
        versions: of Python and packages.
        date: ISO 8601.
        schema: version of this form.
    """

    command: str
    queries: int
    k: int
    m: int
    images: int
    skipped: int
    nbytes: int
    refine: float | None
    rates: Rates
    looks: tuple[Look, ...]
    seed: int
    machine: Machine
    versions: dict[str, str]
    date: str
    schema: int = SCHEMA

    called: ClassVar = "report of indexing"
    version: ClassVar = SCHEMA

    def __post_init__(self) -> None:
        """Refuse a report without looks."""
        if not self.looks:
            raise RecordError("a report of indexing needs a look")

    @property
    def indexed(self) -> Look:
        """The first look at which all images could be searched."""
        return next(look for look in self.looks if look.images == self.images)

    @property
    def rate(self) -> float:
        """Images a second from the first look to the last before all were there."""
        growing = [look for look in self.looks if look.images < self.images]
        if len(growing) < 2:
            return self.images / self.indexed.seconds
        first, last = growing[0], growing[-1]
        return (last.images - first.images) / (last.seconds - first.seconds)


def open_indexing(path: Path) -> Indexing:
    """Read a report that a user named.

    Raises:
        RecordError: it isn't one, or can't be read.
    """
    return record.opened(Indexing.load, path, "evaluation.indexing")
