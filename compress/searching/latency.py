"""The search under a share of the full tower's encoder's seconds, corrected by the clock.

Prices add up what parts take one at a time; what a finished tower takes is measured, and the budget
corrected by it.
"""

from compress.budgets.correcting import attempts
from compress.budgets.token_prices import SecondPrices
from compress.choices import Deployment
from compress.errors import UserError
from compress.making.source import Source
from compress.making.timing import as_finished
from compress.searching.combinations import Tried, best_combinations, least_lost
from compress.searching.found import Found
from compress.searching.search import Search
from compress.searching.ways import FullTower
from pruning_mechanism import Tower, is_smaller
from pruning_mechanism.costs.conditions import computed_in_full
from pruning_mechanism.deployed.seconds import measured_share

CORRECTIONS = 5
"""Times that a tower is made under a latency constraint, which is corrected by what it took."""
LEFT = 0.95
"""Share of the constraint below which a finished tower leaves seconds that it should spend."""


def full_tower(source: Source, deployment: Deployment) -> FullTower:
    """The tower that a latency constraint is a share of, where the result will run as well."""

    def made() -> FullTower:
        model, processor = source.model, source.processor
        if is_smaller(model):  # its patches are coarser
            model, processor = source.full.tower.model, source.full.processor
        tower = source.deployed(model, deployment)
        return FullTower(tower, processor, source.sampling.batch_size, deployment)

    return source.cache.once(("full tower", deployment), made)


def within(source: Source, full: FullTower, asked: float, search: Search) -> Found:
    """The best combinations whose encoder takes a share of the full tower's encoder's seconds.

    Raises:
        UserError: there is none.
    """
    size, dense = full.batch_size, source.deployed(source.model, full.deployment)
    alone = Tower.of(as_finished(source.model, search.finish)).reads_class_token
    known, key = source.cache.shared, (full.batch_size, source.chain, full.deployment)
    measured = known.once(
        ("seconds", *key, alone), lambda: SecondPrices.measured(dense, size, alone)
    )
    first = asked
    if is_smaller(source.model):  # it takes less time already
        in_full = dense.like(computed_in_full(dense.model))  # as the tables count it
        own = known.once(("share", *key), lambda: measured_share(in_full, full.tower, size))
        first = min(1.0, asked / own)

    def make(share: float) -> list[Tried]:
        prices = measured.under(share)
        return best_combinations(source, prices, search)

    def took(tried: list[Tried]) -> float:
        finished = as_finished(least_lost(tried).model, search.finish)
        return measured_share(source.deployed(finished, full.deployment), full.tower, size)

    best: Found | None = None
    for attempt in attempts(make, took, asked, first, CORRECTIONS):
        found = Found(source, attempt.made, measured, attempt.took, deployment=full.deployment)
        if attempt.took <= asked and (best is None or found.best.lost < best.best.lost):
            best = found
        if best and (attempt.took >= LEFT * asked or attempt.asked == 1.0):
            break  # seconds are spent, or the last correction asked for too many
    if best is None:
        raise UserError(
            f"{search.label}: {CORRECTIONS} times chosen, the finished tower still took "
            f"{attempt.took:.3f} of the dense one's seconds; ask for a little less"
        )
    return best
