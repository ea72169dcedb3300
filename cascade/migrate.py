"""Migrating: another last stage for a collection, without encoding all of its photos again.

    python -m cascade.migrate photos.cascade --last NEW
    python -m cascade.migrate photos.cascade --last NEW --at-least 0.9

The first measures on a sample what the collection would return, and changes nothing; the second
goes on to migrate if that is enough. What is encoded anew is the sample, and later the candidates
that queries bring up.

    python -m cascade.migrate photos.cascade --first NEW

gives it another first stage, which encodes all photos; what the last stage has encoded stays.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from cascade.terminal.command import run_command
from commands.errors import UsageError
from commands.flags import (
    Bounds,
    Checkpoint,
    Count,
    Positional,
    ReadPath,
    Seed,
    Unread,
)
from commands.run import main_of
from commands.towers import TowersOptions


@dataclass(frozen=True)
class MigrateOptions(TowersOptions):
    """Give a collection another last stage without encoding all of its photos again.

    Its first stage's embeddings are mapped to where the new tower embeds texts. Or give it another
    first stage, and keep what the last one has encoded.

    Example: python -m cascade.migrate photos.cascade --last openai/clip-vit-large-patch14
    """

    collection: Positional[Annotated[ReadPath, tyro.conf.arg(metavar="COLLECTION")]] = Path(
        "photos.cascade"
    )
    """the collection, as cascade.index made it"""
    last: Checkpoint | None = None
    """checkpoint of the new last stage, which needs a text tower"""
    first: Checkpoint | None = None
    """checkpoint of a new first stage in place of a new last one: it encodes all photos, and goes
    on where it was if it is cut off"""
    at_least: Annotated[float, Bounds(0, 1)] | None = None
    """migrate if it returns at least this share of what a full re-encoding would; by default it is
    only measured"""
    m: Count | None = None
    """candidates handed to the new last stage (default: as many as to the old one)"""
    k: Count = 10
    """results that are compared"""
    queries: ReadPath | None = None
    """text file of queries as they will be asked, one a line (default: the collection's captions,
    or where it has none its images)"""
    drawn: Count = 1000
    """queries drawn from captions or images"""
    images: Count = 2000
    """photos that the new tower encodes for it, drawn from all; what it encodes is kept"""
    batch_size: Count = 32
    """photos that pass through a tower at once"""
    seed: Seed = 0
    """seed for drawing photos and queries"""

    unread: ClassVar = (
        Unread(("drawn",), lambda options: options.queries is not None, "--queries"),
        Unread(
            ("at_least", "k", "queries", "drawn", "images", "seed"),
            lambda options: options.first is not None,
            "--first",
        ),
    )
    exclusive: ClassVar = (("first", "last"),)

    def check(self) -> None:
        """Raise `UsageError` if there is no new last stage, or m can't be as large as k."""
        super().check()
        if self.last is None and self.first is None:
            raise UsageError("name the checkpoint of the new last stage: --last DIR or a hub name")
        if self.first is None and self.m is not None and self.m < self.k:
            raise UsageError(f"--m {self.m} is below --k {self.k}: fewer candidates than results")


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("cascade.migrate"), MigrateOptions, "cascade.migrate")

import math
import os

import numpy as np
from rich.table import Table

from cascade.collecting.renewing import Renewal, check_renewable
from cascade.collection import Collection
from cascade.cost import checked_m
from cascade.migrating.proposing import Proposal, Terms, proposed
from cascade.stages.stage import Stage
from cascade.stages.towers import Towers
from cascade.terminal.collections import first_stages
from cascade.terminal.progress import photo_bar
from cascade.terminal.query_files import queries_in
from commands.screen import announced, console, printable

_ROWS = 6


def main(options: MigrateOptions) -> None:
    """Migrate: to another first stage, or if it is measured to be enough to another last one."""
    if options.first is not None:
        _renew(options, options.first)
    else:
        _measure(options)


def _renew(options: MigrateOptions, checkpoint: str) -> None:
    """Let a new first stage encode all photos, and put it there."""
    towers = Towers(options.device, options.runtime, options.batch_size)
    with Collection.open(
        options.collection,
        batch_size=towers.batch_size,
        device=towers.device,
        runtime=towers.runtime,
    ) as collection:
        check_renewable(collection.record, collection.path)
        with announced("loading checkpoints"):
            (first,) = first_stages(collection, [checkpoint], towers)
        m = collection.m if options.m is None else (options.m, *collection.m[1:])
        try:
            checked_m(m, len(collection.stages))
        except ValueError as error:
            raise UsageError(f"--m {options.m}: {error}") from error
        asked = Renewal(first, m, options.batch_size, os.cpu_count() or 1)
        with photo_bar() as bar:
            bar.total = len(collection)
            bar.set_description("new first stage")
            collection.renew(asked, bar.update)
        images = len(collection)
    console().print(
        f"wrote {printable(options.collection)}: {printable(checkpoint)} ranks all {images:,} "
        f"photos and hands on {m[0]:,}. Nothing is certified of that: evaluation.plan does. A "
        "running cascade.serve has to be started again",
        soft_wrap=True,
    )


def _measure(options: MigrateOptions) -> None:
    """Measure, show the table, and migrate if it is enough."""
    queries = None if options.queries is None else queries_in(options.queries)
    if options.at_least is not None and not os.access(options.collection, os.W_OK):
        raise UsageError(f"{options.collection} can't be written: it can be measured only")
    with Collection.open(
        options.collection,
        batch_size=options.batch_size,
        device=options.device,
        runtime=options.runtime,
    ) as collection:
        last = _last(options, collection)
        m = options.m or max(options.k, collection.m[0] if collection.m else 50)
        terms = Terms(
            options.images,
            options.k,
            queries,
            options.drawn,
            largest=max(4096, m),
            seed=options.seed,
        )
        with photo_bar() as bar:
            bar.total = min(options.images, len(collection))
            bar.set_description("new last stage")
            try:
                proposal = proposed(collection, last, terms, options.batch_size, bar.update)
            except ValueError as error:
                raise UsageError(f"{options.collection}: {error}") from error
        agreement = _show(proposal, m, options, len(collection))
        if options.at_least is None:
            console().print(
                f"{printable(options.collection)} is as it was: --at-least {_floored(agreement)} "
                "migrates it",
                soft_wrap=True,
            )
            return
        if agreement < options.at_least:
            raise UsageError(_refusal(proposal, m, agreement, options))
        collection.restage(proposal.restaging(m))
    console().print(
        f"wrote {printable(options.collection)}: {printable(options.last)} ranks "
        f"{m:,} candidates. A running cascade.serve has to be started again",
        soft_wrap=True,
    )


def _last(options: MigrateOptions, collection: Collection) -> Stage:
    """The new last stage.

    Raises:
        UsageError: it is the collection's already.
    """
    with announced("loading checkpoints"):
        towers = Towers(options.device, options.runtime, options.batch_size)
        last = towers.load(str(options.last))
    if last.name == collection.stages[-1].name and last.text_name == collection.stages[0].text_name:
        raise UsageError(f"{options.last} is the last stage of {options.collection} already")
    return last


def _show(proposal: Proposal, m: int, options: MigrateOptions, images: int) -> float:
    """The table of m, and what it was measured on; the agreement with m candidates."""
    measured, sample, screen = proposal.measured, proposal.sample, console()
    k = options.k
    table = Table("m", f"agreement@{k}, at least", "in the sample", "photos brought up")
    for column in table.columns:
        column.justify = "right"
    spaced = np.geomspace(k, max(k, min(measured.largest, max(20 * k, 4 * m))), _ROWS)
    for each in sorted({*spaced.round().astype(int).tolist(), min(m, measured.largest)}):
        table.add_row(
            f"{each:,}",
            f"{measured.agreement(each):.1%}",
            f"{measured.sample_agreement(each):.1%}",
            f"{measured.brought_up(each):,}",
            style="bold" if each == m else None,
        )
    screen.print(table)
    agreement = measured.agreement(m)
    screen.print(
        f"of the {k} photos that the new tower alone would rank first, with {measured.queries}: at "
        f"least so many among all {images:,} photos, and as many if the sample of {len(sample):,} "
        f"were all. m = {k} is the mapped first stage alone",
        soft_wrap=True,
    )
    kept = ", ".join(f"{kind} {share:.1%}" for kind, share in proposal.kept.items())
    screen.print(
        f"map: {proposal.kind}, learnt from {len(sample):,} photos (kept of the nearest {k}: "
        f"{kept})"
    )
    each = sample.seconds / max(1, len(sample) + sample.unreadable)
    screen.print(
        f"encoded now: {len(sample):,} photos in {sample.seconds:.0f} s; all {images:,} would take "
        f"{each * images:,.0f} s"
    )
    if sample.unreadable:
        screen.print(f"{sample.unreadable:,} sampled photos can't be read any more")
    return agreement


def _refusal(proposal: Proposal, m: int, agreement: float, options: MigrateOptions) -> str:
    """Why it isn't migrated, and what would help."""
    wanted = options.at_least or 0.0
    said = (
        f"{options.collection} is as it was: with m = {m:,} it would return {agreement:.1%} of "
        f"what a full re-encoding does or more, --at-least asks for {wanted:.1%}. "
    )
    enough = proposal.measured.smallest_m(wanted, options.k)
    if enough is not None:
        return said + f"--m {enough} would do"
    return said + "More --images would tell better, and map better; or make a new collection"


def _floored(share: float) -> str:
    """A share that is reached at least, in two digits."""
    return f"{math.floor(100 * share) / 100:.2f}"
