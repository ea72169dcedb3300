"""Refining as commands do it: a bar while it goes on, and a line of how far the last stage is."""

import time

from cascade.collecting.refining import Budget
from cascade.collection import Collection
from cascade.terminal.progress import photo_bar
from commands.screen import console


def refine(collection: Collection, budget: Budget, quiet: bool = False) -> None:
    """Let the last stage encode, and say how far it has come.

    Args:
        collection: of two stages or more.
        budget: how much.
        quiet: show no bar, and say nothing if nothing was left to encode.
    """
    begun = time.perf_counter()
    with photo_bar(quiet) as bar:

        def shown(encoded: int) -> None:
            bar.update(encoded)

        done = collection.refine(budget, progress=shown)
    if quiet and not done:
        return
    status = collection.status()
    share = f" ({status.encoded[-1] / status.images:.1%})" if status.images else ""
    console().print(
        f"encoded {done:,} photos in {time.perf_counter() - begun:.1f} s; the last stage has "
        f"encoded {status.encoded[-1]:,} of {status.images:,}{share}"
    )
    if said := stale_thumbnails(collection):
        console().print(said, soft_wrap=True)


def stale_thumbnails(collection: Collection) -> str | None:
    """How many of the photos opened by later stages have a thumbnail of another picture."""
    counts = collection.thumbnails.counts
    stale = counts.get("stale", 0)
    if not stale:
        return None
    opened = stale + counts.get("used", 0)
    return (
        f"{stale:,} of {opened:,} photos that were opened show something else than their "
        "thumbnails: the first stage ranks them by what these show"
    )
