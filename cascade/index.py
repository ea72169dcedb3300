"""Indexing: the photos at some places become a collection that is searched, now and later.

    python -m cascade.index ~/Pictures --into photos.cascade --first DIR --last NAME

Only what is new or changed is encoded. Whatever ends a run, the next one goes on where it was.
"""

import math
import os
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from cascade.inverted.fitting import Index
from cascade.terminal.command import run_command
from commands.errors import UsageError
from commands.flags import (
    Bounds,
    Checkpoint,
    Count,
    NotSplit,
    Place,
    Positional,
    Seconds,
    Share,
    Unread,
    WrittenPath,
    by_default,
)
from commands.run import main_of
from commands.towers import DtypeName, TowersOptions

Cores = Annotated[float, Bounds(0, low_open=True)]
NotNegative = Annotated[float, Bounds(0)]
Recall = Annotated[float, Bounds(0, 1, low_open=True)]


@dataclass(frozen=True)
class IndexOptions(TowersOptions):
    """Make photos searchable; only what is new or changed is read, and a cut-off run goes on.

    Example: python -m cascade.index ~/Pictures --first DIR --last openai/clip-vit-base-patch16
    """

    photos: Positional[Annotated[tuple[Place, ...], tyro.conf.arg(metavar="PHOTOS")]] = ()
    """directories, files, patterns as 'DIR/*.jpg', tars, hub:owner/name, - for a list; or other
    collections of the same stages, which are joined to this one"""
    into: WrittenPath = Path("photos.cascade")
    """the collection, a directory that is made if it isn't there"""
    first: Checkpoint | None = None
    """checkpoint of the cheap first stage, which encodes every photo"""
    last: Checkpoint | None = None
    """checkpoint that ranks its candidates; needed to make a collection"""
    m: Count | None = None
    """candidates handed from the first stage to the last (50 in a new collection)"""
    include: NotSplit[tuple[str, ...]] = ()
    """only files that match one of these, such as '*.jpg' or 'holidays/*'"""
    exclude: NotSplit[tuple[str, ...]] = ()
    """no files or folders that match one of these"""
    prune: bool = False
    """remove photos that are no longer where they were"""
    retry: bool = False
    """also read again what was skipped before"""
    refine: Share | None = None
    """then let the last stage encode photos ahead of queries, up to this share of all"""
    watch: Seconds | None = None
    """look again after so many seconds, and so on until Ctrl-C"""
    threads: Annotated[Count | None, by_default("as many as cores")] = None
    """threads that read and decode ahead of the first stage"""
    batch_size: Count = 32
    """photos that pass through a tower at once"""
    dtype: Annotated[tuple[DtypeName, ...], by_default("float32")] = ()
    """what vision towers compute in: one for all stages, or one each, the first first; the
    collection remembers what isn't float32"""
    other_base: bool = False
    """let the first stage be made from another checkpoint than --last"""
    resume: bool = False
    """let --last go on from the states of --first, an early exit of it, which are then stored: a
    photo that is promoted is not opened again"""
    index: Index = "auto"
    """search the first stage in memory (exact), by lists on disk, which are then made and measured
    (ivf), or by these once its embeddings take more than half of the memory that is free (auto)"""
    recall: Recall = 0.99
    """share of the exact results that the lists are to find"""
    ray: str | None = None
    """encode on a Ray cluster: auto, HOST:6379, ray://HOST:10001; local: workers on this machine"""
    ray_workers: Annotated[Count | None, by_default("as many as there is room for")] = None
    """workers; each loads the first stage, reads photos and encodes them"""
    ray_cpus: Cores = 1
    """CPU cores of each worker"""
    ray_gpus: NotNegative = 0
    """GPUs of each worker; 0.5: two workers share one"""

    unread: ClassVar = (
        Unread(("ray_workers", "ray_cpus", "ray_gpus"), lambda o: o.ray is None, "no --ray"),
        Unread(("recall",), lambda o: o.index == "exact", "--index exact"),
    )

    def check(self) -> None:
        """Raise `UsageError` if there is nothing to index."""
        super().check()
        if not self.photos:
            raise UsageError(
                "name the photos to index: directories, files, patterns, tars, hub:owner/name, or "
                "- for a list on standard input"
            )
        if self.watch is not None and "-" in self.photos:
            raise UsageError("--watch has no effect with -: a list is read only once")
        if self.resume and self.last is not None and self.first is None:
            raise UsageError("--resume needs --first, the early exit to go on from")
        if self.dtype and self.last is None:
            raise UsageError(
                "--dtype needs --last: a collection computes in the types that it was made with"
            )
        if len(self.dtype) > 1 and len(self.dtype) != 1 + (self.first is not None):
            raise UsageError(
                f"--dtype {' '.join(self.dtype)}: name one type, or one for each stage"
            )
        if self.resume and (self.dtype or self.runtime != "torch"):
            raise UsageError(
                "--resume has no effect on other runtimes: a stage that resumes or is "
                "resumed runs in torch, so leave --runtime and --dtype out"
            )
        if self.prune and self.photos == ("-",):
            raise UsageError("--prune has no effect with -: a list doesn't say what is gone")


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("cascade.index"), IndexOptions, "cascade.index")

from cascade.collecting.record import FILE
from cascade.collecting.refining import Budget
from cascade.collection import Collection
from cascade.inverted.record import searched
from cascade.machines.cluster import Needs
from cascade.machines.crew import Crew
from cascade.machines.joining import join
from cascade.machines.worker import Job
from cascade.photos.changes import Kind
from cascade.photos.finding import Photos
from cascade.stages.towers import Towers
from cascade.terminal.collections import opened_or_made
from cascade.terminal.inverted import told
from cascade.terminal.progress import progress_of
from cascade.terminal.refining import refine
from cascade.terminal.skipped import by_reason
from cascade.upkeep import Upkeep, bring_up_to_date
from commands.screen import announced, console
from corpora.readers.patterns import Patterns


def main(options: IndexOptions) -> None:
    """Bring the collection up to date and say what was done; perhaps again and again."""
    others = [Path(name) for name in options.photos if Path(name, FILE).is_file()]
    places = [name for name in options.photos if Path(name) not in others]
    if options.watch is not None and not places:
        raise UsageError("--watch has no effect with collections alone: they are joined once")
    photos = Photos.at(places, Patterns(options.include, options.exclude))
    with (
        opened_or_made(
            options.into,
            options.first,
            options.last,
            options.m,
            Towers(options.device, options.runtime, options.batch_size, options.dtype),
            options.other_base,
            like=others[0] if others else None,
            resume=options.resume,
            index=options.index,
        ) as collection,
        _crew(collection, options) as crew,
    ):
        if options.refine is not None and len(collection.stages) == 1:
            raise UsageError("--refine has no effect with a collection of one stage")
        for other in others:
            _join(collection, other)
        if places:
            _run(collection, photos, options, crew)
        _lists(collection, options)
        _rest(collection, options)
        while options.watch is not None:
            _run(collection, photos, options, crew, quiet=True)
            _lists(collection, options, quiet=True)
            _rest(collection, options, quiet=True)


def _lists(collection: Collection, options: IndexOptions, quiet: bool = False) -> None:
    """Make the lists that are searched, or bring them up to date, where there are to be some."""
    if not collection.needs_lists or not len(collection):
        return
    screen = console()
    before = collection.inverted
    found = collection.build_index(options.recall, screen.print)
    if found is not None and not (quiet and found == before):
        for line in told(searched(found), found, collection.record.plan):
            screen.print(line, soft_wrap=True)


def _rest(collection: Collection, options: IndexOptions, quiet: bool = False) -> None:
    """What is done until the next look, or until the end: refining, if it is wanted."""
    left = options.watch
    if options.refine is not None:
        begun = time.monotonic()
        refine(collection, Budget(share=options.refine, seconds=left), quiet)
        if left is not None:
            left = max(0.0, left - (time.monotonic() - begun))
    if left is not None:
        time.sleep(left)


def _join(collection: Collection, path: Path) -> None:
    """Add what another collection holds, and say what became of it."""
    with Collection.open(path) as other:
        done = join(collection, other)
    said = f"{done.added:,} new, {done.replaced:,} changed, {done.unchanged:,} unchanged"
    console().print(f"joined {path}: {said}")
    console().print(_written(collection))


def _crew(collection: Collection, options: IndexOptions) -> "AbstractContextManager[Crew | None]":
    """The workers of a cluster, if one is named."""
    if options.ray is None:
        return nullcontext()
    device = "cuda" if options.ray_gpus else "cpu"
    threads = options.threads or math.ceil(options.ray_cpus)
    needs = Needs(options.ray_cpus, options.ray_gpus, options.ray_workers)
    with announced(f"joining the cluster {options.ray}"):
        job = Job.of(collection, options.batch_size, device, threads, options.runtime)
        return Crew(options.ray, job, needs)


def _run(
    collection: Collection,
    photos: Photos,
    options: IndexOptions,
    crew: Crew | None,
    quiet: bool = False,
) -> None:
    """One look at the photos; `quiet`: nothing is said of one that found nothing to do."""
    begun = time.perf_counter()
    threads = options.threads or os.cpu_count() or 1
    retry = options.retry and not quiet
    with nullcontext() if quiet else progress_of(photos) as bar:
        preparing = None if crew is None else crew.additions
        done = bring_up_to_date(collection, photos, options.prune, retry, threads, bar, preparing)
    seconds = time.perf_counter() - begun
    changed = done.added.added + done.added.replaced + done.kinds[Kind.MOVED] + done.pruned
    if not quiet or changed:
        _say(done, photos, options, collection, seconds)


def _say(
    done: Upkeep, photos: Photos, options: IndexOptions, collection: Collection, seconds: float
) -> None:
    """What was done, what was skipped, and where it is."""
    screen = console()
    kinds = done.kinds
    parts = [
        (done.added.added, "new"),
        (done.added.replaced, "changed"),
        (kinds[Kind.MOVED], "moved"),
        (kinds[Kind.TOUCHED] + kinds[Kind.UNCHANGED], "unchanged"),
        (done.vanished, "gone before they were read"),
        (done.pruned, "removed"),
    ]
    said = [f"{number:,} {what}" for number, what in parts if number]
    screen.print(f"{done.found:,} photos in {seconds:.1f} s: {', '.join(said) or 'nothing new'}")
    if done.opened:
        screen.print(_read(done, collection, options))
    if not done.found:
        screen.print(f"no photos were found at {' '.join(options.photos)}")
    gone = kinds[Kind.GONE] - done.pruned
    if gone > 0 and not options.prune:
        screen.print(f"{gone:,} are no longer where they were: --prune removes them")
    if done.skipped:
        screen.print(by_reason(done.skipped))
    if photos.ignored:
        counted = [f"{number:,} × {kind}" for kind, number in photos.ignored.most_common()]
        screen.print(f"passed over: {', '.join(counted)}")
    screen.print(_written(collection))


def _read(done: Upkeep, collection: Collection, options: IndexOptions) -> str:
    """How photos were opened for the first stage, and how much of them was read."""
    # of a file that was read whole it isn't known here whether its thumbnail was decoded
    ways = {"full": "in full", "scaled": "scaled", "thumbnail": "whole"}
    way = ways[collection.record.stages[0].reads]
    counted = ((done.by_thumbnail, "by thumbnail alone"), (done.opened - done.by_thumbnail, way))
    said = f"opened {', '.join(f'{number:,} {how}' for number, how in counted if number)}"
    if options.ray is not None or not done.size:  # workers read them, or a data set's library
        return said
    return f"{said}; read {done.nbytes / 1e6:,.1f} MB of {done.size / 1e6:,.1f} MB"


def _written(collection: Collection) -> str:
    return f"wrote {collection.path}: {len(collection):,} photos can be searched"
