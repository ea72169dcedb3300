"""Refining: the last stage encodes photos that no query has brought up yet.

    python -m cascade.refine photos.cascade --share 0.5

Searches go on meanwhile, in other programs, and find encoded what this one has done.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cascade.terminal.command import run_command
from commands.flags import Count, Positional, ReadPath, Seconds, Share
from commands.run import main_of
from commands.towers import TowersOptions


@dataclass(frozen=True)
class RefineOptions(TowersOptions):
    """Let the last stage encode photos ahead of any query, until a budget is used up.

    Those most like photos that queries brought up come first.

    Example: python -m cascade.refine photos.cascade --seconds 600
    """

    collection: Positional[Annotated[ReadPath, tyro.conf.arg(metavar="COLLECTION")]] = Path(
        "photos.cascade"
    )
    """the collection, as cascade.index made it"""
    share: Share | None = None
    """stop once the last stage has encoded this share of the photos (all, without a budget)"""
    images: Count | None = None
    """stop after so many photos"""
    seconds: Seconds | None = None
    """stop after so many seconds"""
    batch_size: Count = 32
    """photos that pass through a tower at once"""


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("cascade.refine"), RefineOptions, "cascade.refine")

from cascade.collecting.refining import Budget
from cascade.collection import Collection
from cascade.terminal.refining import refine
from commands.errors import UsageError


def main(options: RefineOptions) -> None:
    """Encode, and say how far the last stage has come."""
    budget = Budget(options.images, options.seconds, options.share)
    with Collection.open(
        options.collection,
        batch_size=options.batch_size,
        device=options.device,
        runtime=options.runtime,
    ) as collection:
        if len(collection.stages) == 1:
            raise UsageError(f"{options.collection} has one stage: there is nothing to refine")
        refine(collection, budget)
