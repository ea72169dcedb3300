"""From importance to a mask under a budget: what every rule that scores units shares.

Stands between importance and mask. The budget is spent by a global ranking of the scores, as the
same share everywhere, or by measured curves, which may be measured again around what was chosen.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf, isfinite

import torch
from torch import nn
from torch.nn.functional import cosine_similarity

from compress.allocation.allocate import Curve, by_curves, split_budget, uniform
from compress.allocation.curves import measure_curves, remeasure_curves
from compress.allocation.head_dim_curves import fixed_dim_curves, measure_dim_curves
from compress.budgets.prices import Constraint, Prices
from compress.calibrating.calibration import Calibration
from compress.calibrating.importance import Importance
from compress.errors import UserError, not_finite
from compress.making.dense import DenseTower
from compress.making.options import Allocation, BudgetOptions
from compress.making.rule import cut
from compress.making.smaller import Plan
from compress.solving.head_dims import Rotated, rotate_tower, turn
from compress.solving.moments import Moments
from pruning_mechanism import Mask, Tower
from pruning_mechanism.costs.latency import LatencyTable
from pruning_mechanism.costs.latency_measurement import measure

Arrange = Callable[[Importance, Mask], Mask]


def as_allocated(importance: Importance, mask: Mask) -> Mask:
    """The best-scored units stay, as allocations have it."""
    del importance
    return mask


def make_plan(
    dense: DenseTower,
    importance: Importance,
    constraint: Constraint,
    options: BudgetOptions,
    default: Allocation,
    rank: Callable[[Importance, Prices], Mask] = split_budget,
    arrange: Arrange = as_allocated,
) -> Plan:
    """The mask that keeps the most important units, as many a sublayer as the options say.

    Args:
        dense: the tower and its calibration sample.
        importance: of all units.
        constraint: what may be kept.
        options: how to allocate, unless left to the rule's own `default`; what may go.
        default: the rule's own.
        rank: the rule's own global ranking, for `scores`.
        arrange: the rule's own choice of units once it is known how many each sublayer keeps; it
            comes before anything is cut and measured.

    Raises:
        UserError: the constraint can't be met, or not by this allocation.
    """
    allocate = options.allocate or (default if options.usual_structures else "curves")
    table = None
    if constraint.kind == "latency":
        size = options.batch_size
        table = dense.once(("latency", size), lambda: measure(dense.model, size))
    if allocate == "curves":
        return _plan_by_curves(dense, importance, constraint, options, table, arrange)
    if table and allocate == "scores":
        raise UserError("--latency-constraint takes --allocate curves or uniform, not scores")
    allocated = uniform if allocate == "uniform" else rank
    mask = allocated(importance, _prices(dense, constraint, table))
    return Plan(arrange(importance, mask), table=table)


def _prices(dense: DenseTower, constraint: Constraint, table: LatencyTable | None) -> Prices:
    config = dense.model.config
    if table:
        return Prices.in_seconds(config, table, constraint.value)
    if constraint.kind == "heads":
        return Prices.in_heads(config, int(constraint.value), dense.kind)
    return Prices.in_macs(config, constraint.value, dense.kind)


def _plan_by_curves(
    dense: DenseTower,
    importance: Importance,
    constraint: Constraint,
    options: BudgetOptions,
    table: LatencyTable | None,
    arrange: Arrange,
) -> Plan:
    """Allocate by the dense tower's curves; then, again and again, by those of what was chosen.

    Of all towers that keep the constraint, the one that loses least on the images of the curves is
    taken; when nothing moves any more, no further round is made. The sizes of heads are those of
    the first allocation.
    """
    calibration, structures = dense.calibration, options.structures
    few = calibration.first(options.curve_samples)
    multiple = options.round_to or (table.preferred_multiple if table else 1)
    start = starting_curves(dense, importance, options)
    curves, dims = start.curves, start.dims
    schedule = list(_schedule(constraint, options))
    best, least, previous = None, inf, None
    for step, again in schedule:
        prices = _prices(dense, step, table)
        mask = _allocated(importance, [*curves, *dims], prices, options, multiple)
        mask = arrange(importance, mask)
        if len(schedule) == 1:
            return Plan(mask, [*curves, *dims], table, model=start.turned)
        if best and mask == previous:  # nothing moves at the constraint itself
            break
        title = step.label
        made = cut(dense, mask, options, f"{title}: repair", turned=start.turned)
        smaller = Tower.of(made[0], dense.kind)
        previous, loss = mask, embedding_loss(dense.tower, smaller, few)
        if step == constraint and loss < least:
            best = Plan(mask, [*curves, *start.dims], table, made, start.turned)
            least = loss
        if again:
            curves = remeasure_curves(
                start.tower, smaller, mask, importance, calibration.first(options.repair_samples),
                options.curve_samples, multiple, dense.weights(), best is None, f"{title}: curves",
                structures,
            )  # fmt: skip
            dims = fixed_dim_curves(mask)
    return best


@dataclass(frozen=True)
class Start:
    """What an allocation by curves starts from.

    `tower` is the dense one in the coordinates that it is cut in, `turned` the model that it is
    one of if these aren't those of the checkpoint, `curves` those of its units, `dims` those of
    its head dimensions.
    """

    tower: Tower
    curves: Sequence[Curve]
    turned: nn.Module | None = None
    dims: Sequence[Curve] = ()


def starting_curves(dense: DenseTower, importance: Importance, options: BudgetOptions) -> Start:
    """The curves of a dense tower, and its heads turned if their dimensions may go.

    Turning heads changes no curve of theirs as a whole: these are the checkpoint's own.
    """
    few = dense.calibration.first(options.curve_samples)
    units = frozenset(options.structures) - {"head_dims"}
    curves = dense.once(
        ("curves", importance, units, len(few)),
        lambda: measure_curves(dense.tower, importance, dense.moments(), few, "curves", units),
    )
    if "head_dims" not in options.structures:
        return Start(dense.tower, curves)
    some = dense.calibration.first(options.repair_samples)
    rotated = dense.once(
        ("rotated", len(some)),
        lambda: rotate_tower(dense.tower, some.batches("turn"), dense.weights()),
    )
    dims = dense.once(
        ("head sizes", len(some), len(few)),
        lambda: measure_dim_curves(
            rotated.tower, _turned(dense.moments(), rotated), few, dense.weights(), "head sizes"
        ),
    )
    return Start(rotated.tower, curves, rotated.tower.model, dims)


def _turned(moments: Sequence[Moments], rotated: Rotated) -> list[Moments]:
    """The moments of a turned tower's sublayers, attention and MLP by turns."""
    turned = list(moments)
    turned[::2] = map(turn, moments[::2], rotated.value_bases)
    return turned


def _allocated(
    importance: Importance,
    curves: Sequence[Curve],
    prices: Prices,
    options: BudgetOptions,
    multiple: int,
) -> Mask:
    try:
        return by_curves(importance, curves, prices, multiple, options.structures)
    except ValueError as error:
        raise UserError(
            f"what --structures {','.join(options.structures)} leaves is over the constraint: "
            "allow more structures"
        ) from error


def _schedule(constraint: Constraint, options: BudgetOptions) -> Iterator[tuple[Constraint, bool]]:
    """The constraints to allocate at, each with whether curves are measured again after it."""
    for step in range(1, options.steps):
        yield constraint.on_the_way(step / options.steps), True
    for left in range(options.rounds, -1, -1):
        yield constraint, left > 0


@torch.no_grad()
def embedding_loss(dense: Tower, smaller: Tower, calibration: Calibration) -> float:
    """Mean 1 - cos of what two towers make of the same images or texts.

    Raises:
        UserError: an embedding is not finite.
    """
    distances = []
    for batch in calibration.batches():
        inputs = batch.inputs(dense.kind)
        distances.append(
            1 - cosine_similarity(dense.embeddings(inputs), smaller.embeddings(inputs))
        )
    found = torch.cat(distances).mean().item()
    if not isfinite(found):
        raise not_finite("the projection")
    return found
