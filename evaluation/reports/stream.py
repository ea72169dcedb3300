"""What a stream of queries costs a collection over its lifetime: the report.

`evaluation.stream` writes it, and `figures.stream` draws it.
"""

from dataclasses import dataclass
from pathlib import Path

from cascade.cost import lifetime_speedup
from evaluation.measuring.values import Machine, Running
from evaluation.reports import record
from evaluation.reports.record import RecordError

SCHEMA = 1
FILE = "report.json"


@dataclass(frozen=True)
class Bin:
    """Hits whose stated probability lies between two bounds, and how many are what it says.

    Attributes:
        low: bound.
        high: bound.
        hits: how many.
        stated: mean stated probability.
        happened: share that is in the full tower's top k.
    """

    low: float
    high: float
    hits: int
    stated: float
    happened: float


@dataclass(frozen=True)
class Curve:
    """What one way to choose m costs.

    Attributes:
        name: "fixed" or "auto".
        m: candidates of a query, mean over the streams.
        agreement: agreement@k, mean over the streams, in [0, 1]; None: the full tower hasn't
            encoded all images.
        encoded: images that the last stage has encoded, for each stream after each number of
            queries.
        reliability: of the hits of all texts; none if agreement is None or nothing is calibrated.
        calibration_error: expected calibration error of these.
    """

    name: str
    m: float
    agreement: float | None
    encoded: tuple[tuple[int, ...], ...]
    reliability: tuple[Bin, ...] = ()
    calibration_error: float | None = None


@dataclass(frozen=True)
class Stream:
    """What streams of queries cost.

    Attributes:
        command: the command line that made the report.
        images: of the collection.
        texts: different queries.
        exponent: of Zipf's law.
        k: results of a query.
        target: mean agreement that both ways were certified for, on other queries.
        learnt_from: what those were.
        seconds: median seconds per image of each stage, from the file to the embedding.
        queries: the numbers of queries after which encoded images were counted.
        curves: what was compared.
        machine: that seconds were measured on.
        encoder_seconds: of each stage's encoder alone; None in older reports, and where it can't
            be told apart.
        running: how each stage runs; none in older reports, and where stages don't say.
        schema: version of this form.
    """

    command: str
    images: int
    texts: int
    exponent: float
    k: int
    target: float
    learnt_from: str
    seconds: tuple[float, float]
    queries: tuple[int, ...]
    curves: tuple[Curve, ...]
    machine: Machine
    schema: int = SCHEMA
    encoder_seconds: tuple[float, float] | None = None
    running: tuple[Running, ...] = ()

    def __post_init__(self) -> None:
        """Refuse curves that don't fit the numbers of queries and images."""
        for curve in self.curves:
            for encoded in curve.encoded:
                if len(encoded) != len(self.queries) or not 0 <= max(encoded) <= self.images:
                    raise RecordError(f"the curve {curve.name} isn't of these queries and images")

    def shares(self, curve: Curve) -> list[float]:
        """F after each number of queries, mean over streams."""
        counts = zip(*curve.encoded, strict=True)
        return [sum(count) / len(count) / self.images for count in counts]

    def speedups(self, curve: Curve) -> list[float]:
        """Lifetime speedup after each number of queries."""
        return [lifetime_speedup(self.seconds, f) for f in self.shares(curve)]

    def encoder_speedups(self, curve: Curve) -> list[float] | None:
        """The same of encoder-only seconds; None: not measured."""
        seconds = self.encoder_seconds
        return seconds and [lifetime_speedup(seconds, f) for f in self.shares(curve)]

    def save(self, directory: Path) -> None:
        """Write the report into a directory.

        Raises:
            OSError: it can't be written.
        """
        record.save(self, directory / FILE, "report of a stream")

    @classmethod
    def load(cls, path: Path) -> "Stream":
        """Read a report.

        Raises:
            RecordError: it isn't one, or one with another schema.
            OSError: it can't be read.
        """
        return record.read(cls, path, SCHEMA, "report of a stream")


def open_stream(path: Path) -> Stream:
    """Read a report that a user named.

    Raises:
        RecordError: it isn't one, or can't be read.
    """
    return record.opened(Stream.load, path, "evaluation.stream")
