"""Where the time from the bytes of photographs to their embeddings goes: one run's report.

Data alone, as `evaluation.reports.report`: the table (`evaluation.reports.breakdown.table`) and
`figures.breakdown` are made from it. Times are in seconds for one image, sizes in bytes and pixels.
No module that this one imports needs torch.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from evaluation.measuring.values import Interval, Machine, Timing
from evaluation.reports import record
from evaluation.reports.record import RecordError

SCHEMA = 1
FILE = "report.json"
STEPS = ("read", "decode", "prepare", "encode")
Role = Literal["plain", "full tower", "first stage"]


@dataclass(frozen=True)
class Split:
    """Seconds of each step, one after the other, images one by one but for encoding.

    Attributes:
        read: waiting for the bytes of files.
        decode: from bytes to a picture, upright where a contender turns it.
        prepare: from the picture to the pixels that the tower takes.
        encode: from pixels to the embedding, in batches: "encoder only".
    """

    read: Timing
    decode: Timing
    prepare: Timing
    encode: Timing

    @property
    def medians(self) -> tuple[float, float, float, float]:
        """In the order of `STEPS`."""
        steps = (self.read, self.decode, self.prepare, self.encode)
        read, decode, prepare, encode = (step.median for step in steps)
        return read, decode, prepare, encode

    @property
    def slower(self) -> float:
        """The slower of what can overlap: all before the encoder, and the encoder."""
        *before, encode = self.medians
        return max(sum(before), encode)


@dataclass(frozen=True)
class Lifetime:
    """What a first stage makes of a collection's cost, in front of a last stage.

    Attributes:
        last: name of the last stage, the fastest of the report's at as many threads.
        same: lifetime speedup against the last stage alone, end to end.
        encoder: the same of encoder-only seconds.
        plain: against plain transformers, end to end; None if these weren't measured.
        plain_encoder: the same of encoder-only seconds.
    """

    last: str
    same: Interval
    encoder: Interval
    plain: Interval | None
    plain_encoder: Interval | None


@dataclass(frozen=True)
class Way:
    """One way from files to embeddings, at a number of threads.

    Attributes:
        name: of the checkpoint, and of what differs between the ways that it takes.
        role: "plain", which is AutoModel and AutoProcessor of transformers on decoded pictures;
            "full tower"; or "first stage".
        checkpoint: name of its directory, or on the hub.
        reads: what it reads of a file: "full", "scaled" or "thumbnail".
        runtime: what computes the tower.
        dtype: that it computes in.
        threads: cores that it may use.
        split: seconds of each step alone.
        end_to_end: seconds as it runs, the steps overlapping where it lets them.
        nbytes: read of a file, on average.
        faster: seconds of plain transformers / its own, end to end; None if these weren't measured.
        faster_encoder: the same of encoder-only seconds.
        lifetime: None of all but first stages, and where there is no last stage.
    """

    name: str
    role: str
    checkpoint: str
    reads: str
    runtime: str
    dtype: str
    threads: int
    split: Split
    end_to_end: Timing
    nbytes: float
    faster: Interval | None
    faster_encoder: Interval | None
    lifetime: Lifetime | None

    @property
    def overlap(self) -> float:
        """How near it comes to the slower of its own halves: 1 where the other costs nothing."""
        return self.split.slower / self.end_to_end.median


@dataclass(frozen=True)
class Files:
    """The photographs that were timed.

    Attributes:
        name: of the corpus, or of the places.
        images: how many.
        nbytes: of a file, median.
        pixels: of a picture, median.
        thumbnails: how many files have a thumbnail in their EXIF.
        formats: how many files there are of each, most first.
    """

    name: str
    images: int
    nbytes: float
    pixels: float
    thumbnails: int
    formats: dict[str, int]

    @property
    def described(self) -> str:
        """In words, as in "200 files of camera (JPEG): 4.4 MB, 12.0 megapixels, 180 thumbnails"."""
        formats = ", ".join(
            name if number == self.images else f"{number} {name}"
            for name, number in self.formats.items()
        )
        size = self.nbytes / 1e6
        shown = f"{size:.1f} MB" if size >= 0.95 else f"{1000 * size:.0f} kB"
        return (
            f"{self.images:,} files of {self.name} ({formats}): {shown}, "
            f"{self.pixels / 1e6:.3g} megapixels (medians), {self.thumbnails:,} with a thumbnail"
        )


@dataclass(frozen=True)
class Breakdown(record.Saved):
    """One run.

    Attributes:
        command: the command line that made it.
        files: the photographs.
        batch: images that pass through a tower at once.
        f: lifetime return fraction of the lifetime speedups.
        ways: at each number of threads those that were timed in turn, plain transformers first.
        skipped: names of the files that couldn't be read.
        seed: for drawing the files.
        machine: where it was measured; its threads are the most of the ways.
        versions: of Python and packages.
        date: ISO 8601.
        schema: version of this form.
    """

    command: str
    files: Files
    batch: int
    f: float
    ways: tuple[Way, ...]
    skipped: tuple[str, ...]
    seed: int
    machine: Machine
    versions: dict[str, str]
    date: str
    schema: int = SCHEMA

    called: ClassVar = "breakdown"
    version: ClassVar = SCHEMA

    def __post_init__(self) -> None:
        """Refuse a report without a way, and ways that can't be told apart."""
        if not self.ways:
            raise RecordError("a breakdown needs at least one way from files to embeddings")
        names = [(way.name, way.threads) for way in self.ways]
        if len(set(names)) < len(names):
            raise RecordError("two ways of a breakdown have the same name and threads")

    @property
    def threads(self) -> tuple[int, ...]:
        """The numbers of threads, in their order."""
        return tuple(dict.fromkeys(way.threads for way in self.ways))


def open_breakdown(path: Path) -> Breakdown:
    """Read a report that a user named.

    Raises:
        RecordError: it isn't one, or can't be read.
    """
    return record.opened(Breakdown.load, path, "evaluation.breakdown")
