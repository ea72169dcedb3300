"""Whether the thumbnails in photos can stand for them, and what reading these costs.

How many files have a thumbnail that does for a tower, and what is wrong with the others; how many
thumbnails are stale, which only shows where the photo itself is opened as well; and the seconds of
opening a file in full, scaled, and by its thumbnail. No tower is needed.

    python -m evaluation.thumbnails --corpus folder --corpus-dir ~/Pictures --split train
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from commands.flags import ConfigOption, Count, ReadPath
from commands.run import main_of
from compress.command import run_command


@dataclass(frozen=True)
class ThumbnailsOptions(ConfigOption):
    """Say how many photos have a thumbnail that a tower can read, and what each way costs.

    Example: python -m evaluation.thumbnails --corpus folder --corpus-dir photos --edge 224
    """

    corpus: str = "scenes"
    """scenes, coco, flickr30k, flickr8k, folder, or hub:OWNER/NAME; captions aren't read"""
    corpus_dir: ReadPath | None = None
    """where the corpus lies"""
    split: str = "validation"
    """train, validation or test"""
    images: Count | None = None
    """look at the first N files (default: all)"""
    edge: Count = 224
    """pixels of a photo's shorter edge that the tower takes"""
    timed: Count = 16
    """files that are opened in each way, in turn, on one thread"""
    repetitions: Count = 5
    """times that they are"""
    json: bool = False
    """print it as one line of JSON"""


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("evaluation.thumbnails"), ThumbnailsOptions, "evaluation.thumbnails")

import torch
from rich.table import Table
from tqdm import tqdm

from commands.screen import console
from compress.errors import UserError
from corpora import CorpusError, load_corpus, open_image
from corpora.column import undecoded
from corpora.decoding.reads import READS, Reads, Tally, wanted
from corpora.decoding.sources import content_of
from corpora.decoding.thumbnails import shows_same
from evaluation.measuring.clock import seconds_per_image
from evaluation.measuring.values import Timing

SAYS: Mapping[str, str] = {
    "used": "a thumbnail that shows the photo, which is read in its place",
    "absent": "no thumbnail: the photo is read scaled",
    "too small": "a thumbnail that is too small: the photo is read scaled",
    "other shape": "a thumbnail of another shape or turned otherwise: the photo is read scaled",
    "broken": "a thumbnail that doesn't decode: the photo is read scaled",
    "stale": "a thumbnail of this shape that shows something else, which is read all the same",
    "unreadable": "can't be read in full",
}
"""What is found of a file."""


@dataclass(frozen=True)
class Found:
    """What was found of some files.

    Attributes:
        files: how many there are.
        outcomes: how many of them by what is found, as `SAYS` calls it.
        seconds: per file, in each way to read; None: there is no file to open.
    """

    files: int
    outcomes: Mapping[str, int]
    seconds: Mapping[Reads, Timing] | None


def main(options: ThumbnailsOptions) -> None:
    """Look at all files, time some, and show what was found."""
    corpus = load_corpus(options.corpus, options.corpus_dir, options.split, captions=False)
    if options.images is not None:
        corpus = corpus.select(range(min(options.images, len(corpus))))
    files = undecoded(corpus)["image"]
    if not len(files):
        raise UserError(f"{options.corpus} has no image in its split {options.split}")
    outcomes = dict.fromkeys(SAYS, 0)
    for file in tqdm(files, desc="files", unit="file", leave=None):
        outcomes[outcome(file, options.edge)] += 1
    seconds = timings(files[: options.timed], options.edge, options.repetitions)
    show(Found(len(files), outcomes, seconds), options)


def outcome(file: Mapping[str, Any], edge: int) -> str:
    """What is found of one file, as `SAYS` calls it, for a tower that takes so many pixels."""
    tally = Tally()
    try:
        read = open_image(file, wanted(edge, "thumbnail"), "thumbnail", tally)
        (found,) = tally.counts or {"absent": 1}
        picture = open_image(file, wanted(edge, "scaled"))
    except CorpusError:
        return "unreadable"
    return found if found != "used" or shows_same(read, picture) else "stale"


def timings(
    files: Sequence[Mapping[str, Any]], edge: int, repetitions: int
) -> dict[Reads, Timing] | None:
    """Seconds a file, from its bytes in memory to a picture, in each way in turn, on one thread."""
    contents = []
    for file in files:
        try:
            open_image(file, 1)
            contents.append(content_of(file))
        except CorpusError:
            continue
    if not contents:
        return None

    def opened(reads: Reads) -> None:
        for content in contents:
            open_image(content, wanted(edge, reads), reads)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        contenders = {reads: partial(opened, reads) for reads in READS}
        return seconds_per_image(contenders, len(contents), repetitions, progress="seconds")
    finally:
        torch.set_num_threads(threads)


def show(found: Found, options: ThumbnailsOptions) -> None:
    """Print what was found."""
    if options.json:
        print(json.dumps(asdict(found)))
        return
    table = Table("files", "share", "have", title=f"thumbnails for {options.edge} pixels")
    for name, number in found.outcomes.items():
        if number:
            table.add_row(f"{number:,}", f"{number / found.files:.1%}", SAYS[name])
    console().print(table)
    if found.seconds is None:
        return
    ways = Table("read", "ms a file", "quartiles", title="from bytes to a picture, one thread")
    for reads, clock in found.seconds.items():
        low, high = 1000 * clock.lower_quartile, 1000 * clock.upper_quartile
        ways.add_row(reads, f"{1000 * clock.median:.2f}", f"{low:.2f} to {high:.2f}")
    console().print(ways)
