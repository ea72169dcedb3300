"""Ways from a file to pixels: what each takes on a person's own files, and which may win.

Stands between a sample of files and `compress.joint`. A tower that takes a tenth of the seconds is
of little use behind a decoder that takes most of them; how much of a file is read, and into how
small an image, is spent from the same budget.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm

from compress.budgets.opening import Outlay
from compress.budgets.settings import Setting
from compress.choices import Deployment
from compress.errors import UserError
from corpora import CorpusError
from corpora.decoding.images import open_image
from corpora.decoding.reads import READS, Outcome, Reads, Tally
from corpora.pixels import pixel_values
from corpora.readers.places import Sample
from pruning_mechanism.costs.clock import in_turn
from pruning_mechanism.costs.conditions import settle_memory
from pruning_mechanism.deployed.tower import Deployed
from pruning_mechanism.protocols import Processor

GROUPS = 8
"""Parts of the sample that are timed one after another: their spread says how sure a mean is."""
REPETITIONS = 3
"""Timed turns of each part, after one untimed."""
WORTH = 0.02
"""Share of the seconds to spend that a way to read must save over one that reads more."""


@dataclass(frozen=True)
class Way:
    """How a file becomes what a tower takes.

    Attributes:
        reads: how much of it is read.
        images: what makes the images smaller than the tower's own, if anything does.
    """

    reads: Reads
    images: Setting | None = None

    @property
    def says(self) -> str:
        """In words, for titles and records."""
        return self.reads if self.images is None else f"{self.reads}, {self.images.label}"


@dataclass(frozen=True)
class FullTower:
    """The full tower where it will run, and what prepares its images."""

    tower: Deployed
    processor: Processor
    batch_size: int
    deployment: Deployment = field(default_factory=Deployment)


@dataclass(frozen=True)
class Mean:
    """Mean seconds of a file, and its standard error over the sample; None: of one part only."""

    seconds: float
    error: float | None

    @property
    def says(self) -> str:
        """In words."""
        return _ms(self.seconds) + ("" if self.error is None else f" ± {1000 * self.error:.2g}")


@dataclass(frozen=True)
class Opened:
    """What a sample of files took on this machine, seconds a file, in a warm page cache.

    Attributes:
        files: how many were opened.
        among: how many there are at the places they were drawn from.
        unreadable: what was wrong with others of the sample.
        opening: from file to pixels, by each way.
        full_opening: for the full tower, in full.
        full_encoding: of an image, from pixels to the full tower's embedding.
        thumbnails: what came of looking for one, by the ways that do.
        deployment: what images were encoded in.
    """

    files: int
    among: int
    unreadable: tuple[str, ...]
    opening: Mapping[Way, Mean]
    full_opening: Mean
    full_encoding: Mean
    thumbnails: Mapping[Way, Mapping[Outcome, int]]
    deployment: Deployment = field(default_factory=Deployment)

    def outlay(self, way: Way) -> Outlay:
        """What a way takes beside the full tower."""
        return Outlay(
            self.opening[way].seconds, self.full_opening.seconds, self.full_encoding.seconds
        )

    def notes(self, way: Way, of_encoder: float) -> tuple[str, str]:
        """What a record says of a way, given the share of the full encoder's seconds spent."""
        outlay = self.outlay(way)
        encoding = of_encoder * outlay.full_encoding
        place = "" if self.deployment.plain else f" in {self.deployment.says}"
        unreadable = f", {len(self.unreadable)} more can't be opened" if self.unreadable else ""
        found = ", ".join(
            f"{count} {outcome}" for outcome, count in self.thumbnails.get(way, {}).items()
        )
        return (
            f"took {outlay.share(of_encoder):.3f} of the full tower's seconds here, from file to "
            f"embedding: {self.opening[way].says} to open and prepare an image (reads {way.says}) "
            f"and {_ms(encoding)} to encode it{place}, where the full tower takes "
            f"{self.full_opening.says} and {_ms(outlay.full_encoding)}",
            f"measured on {self.files} of {self.among:,} files, which the system had in memory"
            f"{unreadable}{f'; thumbnails: {found}' if found else ''}",
        )

    def entries(self) -> dict[str, Any]:
        """All that was measured, for a file beside the model."""
        return {
            "files": self.files,
            "among": self.among,
            "unreadable": list(self.unreadable),
            "opening": {way.says: asdict(mean) for way, mean in self.opening.items()},
            "full_opening": asdict(self.full_opening),
            "full_encoding": asdict(self.full_encoding),
            "runs_in": asdict(self.deployment),
            "thumbnails": {way.says: dict(found) for way, found in self.thumbnails.items()},
        }


def opened(sample: Sample, ways: Mapping[Way, Processor], full: FullTower) -> Opened:
    """Open and prepare a sample of files by all ways, and encode by the full tower, in turn.

    Args:
        sample: the files. Each is opened once before, so the system has them in memory.
        ways: what prepares the images of each.
        full: the full tower, on the device that towers run on.

    Raises:
        UserError: none of the files can be opened.
    """
    files, unreadable = _readable(sample, full.processor)
    thumbnails = {
        way: _thumbnails(files, processor)
        for way, processor in ways.items()
        if way.reads == "thumbnail"
    }
    device, noise = full.tower.device, full.tower.noise(full.batch_size)
    encode = partial(full.tower.embed, noise)
    of_full = (way for way, own in ways.items() if way.reads == "full" and own is full.processor)
    in_full: Way | str = next(of_full, "opening")  # one of the ways may be the full tower's as well

    def pixels(part: Sequence[str], processor: Processor, reads: Reads) -> object:
        return pixel_values(processor, part, reads=reads).to(device)

    settle_memory()
    seconds: defaultdict[Way | str, list[float]] = defaultdict(list)
    parts = np.array_split(np.array(files, dtype=object), min(GROUPS, len(files)))
    for part in tqdm(parts, desc="from files to pixels", unit="part"):
        works: dict[Way | str, Callable[[], object]] = {
            way: partial(pixels, part.tolist(), processor, way.reads)
            for way, processor in ways.items()
        }
        if in_full == "opening":
            works["opening"] = partial(pixels, part.tolist(), full.processor, "full")
        works["encoding"] = encode
        for name, turns in in_turn(works, REPETITIONS, device).items():
            images = full.batch_size if name == "encoding" else len(part)
            seconds[name].append(float(np.median(turns)) / images)
    weights = [len(part) for part in parts]
    means = {name: _mean(found, weights) for name, found in seconds.items()}
    return Opened(
        len(files),
        sample.among,
        unreadable,
        {way: means[way] for way in ways},
        means[in_full],
        means["encoding"],
        thumbnails,
        full.deployment,
    )


def promising(found: Opened, share: float) -> tuple[dict[Way, float], dict[Way, str]]:
    """Which ways may win, and why others can't.

    Args:
        found: what the ways take.
        share: of the full tower's seconds from file to embedding, in (0, 1].

    Returns:
        The share of the full encoder's seconds that each way leaves, at most 1, and for ways that
        needn't be searched the reason: nothing is left, or another reads more in the same time.
    """
    left: dict[Way, float] = {}
    out: dict[Way, str] = {}
    for way in found.opening:
        outlay = found.outlay(way)
        others = [other for other in left if _reads_more(other, way)]
        saved = [found.opening[other].seconds - outlay.opening for other in others]
        if outlay.of_encoder(share) <= 0:
            out[way] = f"opening files takes {outlay.least:.3f} alone"
        elif others and way in found.thumbnails and not found.thumbnails[way].get("used"):
            out[way] = "none of the files has a thumbnail that will do"
        elif others and min(saved) < WORTH * share * outlay.full:
            other = others[saved.index(min(saved))]
            out[way] = f"{other.reads} takes no more time"
        else:
            left[way] = min(1.0, outlay.of_encoder(share))
    return left, out


def _reads_more(one: Way, other: Way) -> bool:
    """Whether a way reads more of a file than another that makes the same of it."""
    return one.images == other.images and READS.index(one.reads) < READS.index(other.reads)


def _readable(sample: Sample, processor: Processor) -> tuple[list[str], tuple[str, ...]]:
    """The files that can be opened and prepared, and what is wrong with the others."""
    files, problems = [], []
    for file in tqdm(sample.files, desc="sample of files", unit="file"):
        try:
            pixel_values(processor, [file])
        except CorpusError as error:
            problems.append(str(error).replace(file, os.path.basename(file)))
        else:
            files.append(file)
    if not files:
        raise UserError(
            f"none of the {len(problems)} files drawn from those named can be opened, the first "
            f"because: {problems[0]}"
        )
    return files, tuple(problems)


def _thumbnails(files: Sequence[str], processor: Processor) -> Mapping[Outcome, int]:
    """What comes of looking for thumbnails in files."""
    tally = Tally()
    for file in files:
        pixel_values(processor, [file], partial(open_image, tally=tally), "thumbnail")
    return tally.counts


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms"


def _mean(seconds: Sequence[float], weights: Sequence[int]) -> Mean:
    mean = float(np.average(seconds, weights=weights))
    if len(seconds) < 2:
        return Mean(mean, None)
    return Mean(mean, float(np.std(seconds, ddof=1) / len(seconds) ** 0.5))
