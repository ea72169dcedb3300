"""How a first stage is searched, and what is known to be missed: for whoever reads a terminal."""

from collections.abc import Iterator

from cascade.collecting.record import Plan
from cascade.inverted.record import Inverted


def told(searched: str, found: Inverted | None, plan: Plan | None = None) -> Iterator[str]:
    """Lines that say it.

    Args:
        searched: how the first stage is searched, in a few words.
        found: what was measured of the lists that are searched, if there are any.
        plan: what was certified of an exact search, if anything was.
    """
    yield f"first stage searched: {searched}"
    if found is None:
        return
    for depth in found.depths:
        parts = [f"{share:.4f} on {kind}" for kind, share in depth.recall.items()]
        yield (
            f"  recall@{depth.results:,} {', '.join(parts)}: {depth.probes:,} of the lists, "
            f"{depth.milliseconds:.1f} ms"
        )
    counted = [f"{number:,} {kind}" for kind, number in found.queries.items()]
    yield f"  measured on {' and '.join(counted)} when there were {found.images:,} photos"
    if len(found.queries) == 1:
        yield "  it has no captions: what texts find may be less"
    if plan is not None:
        yield (
            f"  the agreement of {plan.agreement:g} was certified for an exact search: what the "
            "lists miss is not covered"
        )
