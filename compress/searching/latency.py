"""The search under a share of the full tower's encoder's seconds, corrected by the clock.

Prices add up what parts take one at a time; what a finished tower takes is measured, and the budget
corrected by it.
"""

from compress.budgets.token_prices import SecondPrices
from compress.choices import Deployment
from compress.errors import UserError
from compress.making.source import Source
from compress.searching.combinations import best_combinations
from compress.searching.found import Found, Search
from compress.searching.ways import FullTower
from pruning_mechanism import is_smaller
from pruning_mechanism.deployed.seconds import measured_share

CORRECTIONS = 5
"""Times that a latency constraint is corrected by what the finished tower took."""
MARGIN = 0.99
"""Share of the constraint that a correction aims at: a clock doesn't repeat itself exactly."""
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
    known, key = source.cache.shared, (full.batch_size, source.chain, full.deployment)
    measured = known.once(("seconds", *key), lambda: SecondPrices.measured(dense, size))
    best, share_asked = None, asked
    if is_smaller(source.model):  # it takes less time already
        own = known.once(("share", *key), lambda: measured_share(dense, full.tower, size))
        share_asked = min(1.0, asked / own)
    for _ in range(CORRECTIONS):
        prices = measured.under(share_asked)
        tried = best_combinations(source, prices, search.thoroughness, search.label)
        made = source.deployed(Found(source, tried).best.model, full.deployment)
        share = measured_share(made, full.tower, size)
        found = Found(source, tried, measured, share, deployment=full.deployment)
        if share <= asked and (best is None or found.best.lost < best.best.lost):
            best = found
        if best and (share >= LEFT * asked or share_asked == 1.0):
            break  # seconds are spent, or the last correction asked for too many
        share_asked = min(1.0, share_asked * MARGIN * asked / share)
    if best is None:
        raise UserError(
            f"{search.label}: after {CORRECTIONS} corrections the finished tower still took "
            f"{share:.3f} of the dense one's seconds; ask for a little less"
        )
    return best
