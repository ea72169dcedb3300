"""How soon photos can be searched while they are indexed, and how near to the end what is found is.

    python -m evaluation.indexing ~/Pictures --queries queries.txt --first DIR --last NAME

`cascade.index` runs as a user would run it, in a process of its own. This one searches meanwhile,
as another user would, and compares what it finds with what is found when all is done.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cascade.terminal.command import run_command
from commands.errors import UsageError
from commands.flags import (
    Checkpoint,
    ConfigOption,
    Count,
    Place,
    Positional,
    ReadPath,
    Seconds,
    Seed,
    Share,
    WrittenPath,
)
from commands.run import main_of


@dataclass(frozen=True)
class IndexingOptions(ConfigOption):
    """Index photos, search them meanwhile, and say how soon and how well that works.

    Example: python -m evaluation.indexing ~/Pictures --queries q.txt --first DIR --last NAME
    """

    photos: Positional[Annotated[tuple[Place, ...], tyro.conf.arg(metavar="PHOTOS")]] = ()
    """directories, files or patterns, as cascade.index takes them"""
    queries: ReadPath = Path("queries.txt")
    """text file of queries, one a line"""
    first: Checkpoint | None = None
    """checkpoint of the first stage"""
    last: Checkpoint | None = None
    """checkpoint of the full tower"""
    m: Count = 50
    """candidates handed from the first stage to the last"""
    k: Count = 10
    """results that are compared"""
    refine: Share | None = None
    """share of the photos that the full tower encodes after indexing, ahead of queries"""
    every: Seconds = 10.0
    """seconds from one search of all queries to the next"""
    alone: Count = 512
    """photos that decoding and encoding alone are timed on beforehand"""
    batch_size: Count = 32
    """photos that pass through a tower at once"""
    seed: Seed = 0
    """seed for drawing these photos"""
    output: WrittenPath = Path("results/indexing")
    """directory to write report and collection into"""
    overwrite: bool = False
    """replace an earlier result"""

    def check(self) -> None:
        """Raise `UsageError` if there is nothing to index, or to index it with."""
        super().check()
        if self.m < self.k:
            raise UsageError(f"--m must be at least --k, which is {self.k}, not {self.m}")
        if not self.photos:
            raise UsageError("name the photos to index: directories, files or patterns")
        if "-" in self.photos:
            raise UsageError("a list on standard input can be read only once: name places")
        if self.first is None or self.last is None:
            raise UsageError("name the checkpoints of both stages: --first and --last")


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("evaluation.indexing"), IndexingOptions, "evaluation.indexing")

import datetime

from cascade.photos.finding import Photos
from cascade.stages.stage import Stage
from cascade.stages.towers import Towers
from cascade.terminal.collections import opened_or_made
from cascade.terminal.progress import photo_bar
from cascade.terminal.query_files import queries_in
from commands.inputs import inputs_of
from commands.published import published_command
from commands.screen import announced, console, printable
from commands.writing.outputs import finished_directory
from evaluation.growing.alone import rates_of, sampled_rows
from evaluation.growing.looking import Asking, IndexingError, looked
from evaluation.measuring.machine import this_machine, versions
from evaluation.reports.indexing import table as indexing_table
from evaluation.reports.indexing.report import FILE, Indexing, Look

COLLECTION = "photos.cascade"


def main(options: IndexingOptions) -> None:
    """Time the parts alone, index and search, and write report.json and report.md."""
    queries = queries_in(options.queries)
    with finished_directory(options.output, options.overwrite, inputs_of(options)) as directory:
        report = _measured(options, queries, directory)
        report.save(directory / FILE)
        (directory / "report.md").write_text(indexing_table.markdown(report))
    console().print(indexing_table.terminal(report))
    console().print(f"wrote {printable(options.output)}", soft_wrap=True)


def _measured(options: IndexingOptions, queries: list[str], directory: Path) -> Indexing:
    photos = Photos.at(options.photos)
    rows = sampled_rows(photos, options.alone, options.seed)
    if not rows:
        raise UsageError(f"no photos were found at {' '.join(options.photos)}")
    into = directory / COLLECTION
    # made here, so that the process that indexes only opens it: what is wrong with the stages is
    # said before anything is timed
    with opened_or_made(
        into, options.first, options.last, options.m, Towers(batch_size=options.batch_size)
    ) as collection:
        first = collection.stages[0]
        assert isinstance(first, Stage)
        with announced("timing decoding and encoding alone"):
            rates = rates_of(first, rows)
        asking = Asking(collection, queries, options.k, options.refine is not None)
        looks = _looks(options, into, asking)
        status = collection.status()
    if not looks:
        raise UsageError(
            f"--k {options.k}: the {status.images:,} photos that were indexed are fewer than that"
        )
    return Indexing(
        command=published_command("evaluation.indexing", options),
        queries=len(queries),
        k=options.k,
        m=options.m,
        images=status.images,
        skipped=sum(status.skipped.values()),
        nbytes=status.nbytes,
        refine=options.refine,
        rates=rates,
        looks=looks,
        seed=options.seed,
        machine=this_machine("cpu", first.dtype),
        versions=versions(),
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    )


def _looks(options: IndexingOptions, into: Path, asking: Asking) -> tuple[Look, ...]:
    with photo_bar() as bar:

        def shown(images: int) -> None:
            bar.update(images - bar.n)

        try:
            return looked(_index_line(options, into), asking, options.every, shown)
        except IndexingError as error:
            raise UsageError(f"cascade.index failed: {error}") from error


def _index_line(options: IndexingOptions, into: Path) -> list[str]:
    """The command line that a user would type."""
    line = [*options.photos, "--into", str(into), "--batch-size", str(options.batch_size)]
    return line if options.refine is None else [*line, "--refine", str(options.refine)]
