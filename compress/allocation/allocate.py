"""Allocation: how many heads and neurons each layer keeps under a budget.

Stands between importance, which orders the units inside a sublayer, and mask. `uniform` gives every
layer the same share; `by_curves` spends the budget where it is worth most: for each sublayer a
curve says what the final embedding loses at each size, and the sizes of least total loss are found
exactly by dynamic programming.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from scipy.interpolate import PchipInterpolator
from torch import Tensor

from compress.budgets.prices import Costs, Prices, SizePrices, Sizes
from compress.budgets.structures import allowed
from compress.calibrating.importance import Importance
from compress.choices import USUAL_STRUCTURES, Allocation, Structure
from compress.errors import UserError
from pruning_mechanism import Mask

Losses: TypeAlias = npt.NDArray[np.float64]
"""What the final embedding loses at some sizes."""

NEURON_STEPS = 64
"""Sizes of an MLP that an allocation chooses from."""
DIM_STEPS = 8
"""Sizes of queries and keys, and of values, that it chooses from."""


@dataclass(frozen=True)
class Curve:
    """What the final embedding loses when one sublayer keeps only some of its `units`.

    The units are heads or neurons, or, for the kinds `qk_dims` and `value_dims`, the dimensions of
    an attention sublayer's heads. `sizes` ascend; `losses` are mean 1 - cos to the dense embedding,
    measured with this sublayer's size alone changed and its output compensated.
    """

    layer: int
    kind: str
    units: int
    sizes: tuple[int, ...]
    losses: tuple[float, ...]

    def at(self, sizes: npt.ArrayLike) -> Losses:
        """Losses at any sizes, by monotone cubic interpolation; never rising with size."""
        if len(self.sizes) == 1:
            return np.full(np.shape(sizes), self.losses[0])
        falling = np.maximum.accumulate(np.asarray(self.losses)[::-1])[::-1]
        found: Losses = PchipInterpolator(self.sizes, falling)(sizes)
        return found


@dataclass(frozen=True)
class Curves:
    """Curves to allocate by, and which of their sizes an allocation may choose.

    `round_to`: an MLP keeps a multiple of so many neurons, or all of them; `structures`: what may
    go.
    """

    measured: Sequence[Curve]
    round_to: int = 1
    structures: Collection[Structure] = USUAL_STRUCTURES


def allocated(
    importance: Importance,
    prices: Prices,
    allocate: Allocation,
    curves: Curves | None = None,
    ranked: Callable[[Importance, Prices], Mask] | None = None,
) -> Mask:
    """The mask of the best units, as many of them in each sublayer as one of three ways says.

    Args:
        importance: which units are best.
        prices: what they cost, and the budget.
        allocate: by measured `curves`, by a global ranking of the `scores`, or the same share
            everywhere, `uniform`.
        curves: for the first of these.
        ranked: the global ranking; `split_budget` by default.

    Raises:
        UserError: the budget can't be met, or there are no curves to allocate by.
    """
    if allocate == "uniform":
        return uniform(importance, prices)
    if allocate == "scores":
        return (ranked or split_budget)(importance, prices)
    if curves is None:
        raise UserError("an allocation by curves needs curves: see compress.allocation.curves")
    try:
        return by_curves(importance, curves.measured, prices, curves.round_to, curves.structures)
    except ValueError as error:
        raise UserError(
            f"what structures {','.join(curves.structures)} leave is over the budget: allow more "
            "structures"
        ) from error


@dataclass(frozen=True)
class Choices:
    """What one sublayer may cost, and what it then loses; arrays of equal length."""

    costs: Costs
    losses: Losses


def cheapest_loss(choices: Sequence[Choices], budget: float) -> list[int]:
    """One choice for each sublayer, of least total loss within the budget: exact.

    Keeps, sublayer by sublayer, every total cost that isn't beaten in both cost and loss; choices
    that are beaten within their own sublayer never come into it.

    Raises:
        ValueError: even the cheapest choices exceed the budget.
    """
    costs, losses, steps = np.zeros(1), np.zeros(1), []
    rest = sum(sublayer.costs.min() for sublayer in choices)
    for sublayer in choices:
        rest -= sublayer.costs.min()
        useful = _unbeaten(sublayer.costs, sublayer.losses)
        total = (costs[:, None] + sublayer.costs[useful]).ravel()
        lost = (losses[:, None] + sublayer.losses[useful]).ravel()
        within = np.flatnonzero(total + rest <= budget)
        kept = within[_unbeaten(total[within], lost[within])]
        if not len(kept):
            raise ValueError(f"no choice fits the budget {budget:g}")
        steps.append((kept // len(useful), useful[kept % len(useful)]))
        costs, losses = total[kept], lost[kept]
    found, state = [], len(costs) - 1  # the dearest kept state loses least
    for parents, chosen in reversed(steps):
        found.append(int(chosen[state]))
        state = int(parents[state])
    return found[::-1]


def _unbeaten(costs: Costs, losses: Losses) -> npt.NDArray[np.intp]:
    """Positions, by rising cost, of those that no other beats or equals in both cost and loss."""
    order = np.lexsort((losses, costs))
    before = np.concatenate([[np.inf], np.minimum.accumulate(losses[order])[:-1]])
    return order[losses[order] < before]


def by_curves(
    importance: Importance,
    curves: Sequence[Curve],
    prices: SizePrices,
    round_to: int = 1,
    structures: Collection[Structure] = USUAL_STRUCTURES,
) -> Mask:
    """The mask whose sizes lose least by the curves, each sublayer keeping its best units.

    A sublayer chooses from all combinations of the sizes of its curves: those of its units and, in
    attention, where they were measured, those of the dimensions of its heads. The losses add up.
    Of head dimensions the first are kept.

    Args:
        importance: which units of a sublayer are best.
        curves: of the units of each sublayer; of head dimensions, both kinds of all layers or none.
        prices: what sizes cost, and the budget.
        round_to: an MLP keeps a multiple of so many neurons, or all of them.
        structures: what may go.

    Raises:
        ValueError: no choice fits the budget.
    """
    groups = [
        [curve, *(other for other in curves if _sizes_heads_of(other, curve))]
        for curve in curves
        if curve.kind in ("heads", "neurons")
    ]
    tables = [_combinations(group, round_to, structures) for group in groups]
    choices = [
        Choices(
            prices.of(group[0].kind, *table.T, layer=group[0].layer),
            np.sum([curve.at(sizes) for curve, sizes in zip(group, table.T, strict=True)], axis=0),
        )
        for group, table in zip(groups, tables, strict=True)
    ]
    chosen = cheapest_loss(choices, prices.budget)
    keep: dict[str, dict[int, int]] = {}
    for group, table, index in zip(groups, tables, chosen, strict=True):
        for curve, size in zip(group, table[index].tolist(), strict=True):
            keep.setdefault(curve.kind, {})[curve.layer] = size
    dims = {
        dim_curve.kind: dim_curve.units for dim_curve in curves if dim_curve.kind.endswith("dims")
    }
    return Mask(
        best_units(importance.heads, keep["heads"]),
        best_units(importance.neurons, keep["neurons"]),
        *(_first(keep[kind], dims[kind]) for kind in ("qk_dims", "value_dims") if kind in dims),
    )


def _sizes_heads_of(curve: Curve, units: Curve) -> bool:
    """Whether a curve is of the dimensions of the heads whose number another is of."""
    return units.kind == "heads" and curve.kind.endswith("dims") and curve.layer == units.layer


def _combinations(
    group: Sequence[Curve], round_to: int, structures: Collection[Structure]
) -> Sizes:
    """All combinations of sizes of a sublayer's curves, a row each."""
    sizes = [_sizes(curve, round_to, structures) for curve in group]
    return np.stack(np.meshgrid(*sizes, indexing="ij"), axis=-1).reshape(-1, len(group))


def _sizes(curve: Curve, round_to: int, structures: Collection[Structure]) -> Sizes:
    """The sizes that an allocation chooses from: every number of heads, steps of the others.

    The ends of a curve are always among them: whoever measured it saw to it that they may be kept.
    """
    least, most = curve.sizes[0], curve.sizes[-1]
    step = 1
    if curve.kind == "neurons":
        step = round_to * max(1, round(curve.units / NEURON_STEPS / round_to))
    elif curve.kind != "heads":
        step = max(1, curve.units // DIM_STEPS)
    sizes = np.unique([least, *np.arange(-(-least // step) * step, most, step), most])
    if curve.kind in ("heads", "neurons"):
        return allowed(structures, curve.kind, curve.units, sizes)
    return sizes


def _first(counts: Mapping[int, int], units: int) -> Tensor:
    """The mask bool[L, units] of the first `counts[l]` units of each layer l."""
    return torch.arange(units) < torch.tensor([counts[layer] for layer in sorted(counts)])[:, None]


def uniform(importance: Importance, prices: Prices) -> Mask:
    """The mask that keeps the same number of heads and of neurons in every layer.

    The share of the heads is that of the budget, rounded down; neurons take what they leave.
    """
    layers, budget = len(importance.heads), prices.budget
    every = prices.everywhere(layers)
    heads = prices.share_of(len(prices.heads) - 1)
    while heads and every.heads[heads] + every.neurons[0] > budget:  # seconds of no unit at all
        heads -= 1
    neurons = int(np.flatnonzero(every.neurons <= budget - every.heads[heads])[-1])
    return Mask(
        best_units(importance.heads, [heads] * layers),
        best_units(importance.neurons, [neurons] * layers),
    )


def split_budget(importance: Importance, prices: Prices) -> Mask:
    """The exact best split of a MAC budget between heads and neurons of the whole tower.

    Algorithm 1 of arXiv 2204.09656: all heads cost the same, and so do all neurons. So for each
    number of heads the best mask keeps the most important ones, and as many of the most important
    neurons as the rest of the budget pays for; trying every number of heads finds the optimum. Of
    equal sums the one that uses more of the budget is taken.
    """
    head, neuron = int(prices.heads[1]), int(prices.neurons[1])
    kept_by_heads = _prefix_sums(importance.heads)
    kept_by_neurons = _prefix_sums(importance.neurons)
    heads = torch.arange(min(len(kept_by_heads) - 1, prices.budget // head) + 1)
    left = prices.budget - heads * head
    every = len(kept_by_neurons) - 1
    neurons = (left // neuron).clamp(max=every) if neuron else torch.full_like(left, every)
    kept = kept_by_heads[heads] + kept_by_neurons[neurons]
    used = heads * head + neurons * neuron
    best = max(range(len(heads)), key=lambda i: (kept[i].item(), used[i].item()))
    return Mask(
        _top(importance.heads, int(heads[best])), _top(importance.neurons, int(neurons[best]))
    )


def _prefix_sums(scores: Tensor) -> Tensor:
    """The importance of the best 0, 1, 2, … units, in float64."""
    ordered = scores.flatten().double().sort(descending=True).values
    return torch.cat([ordered.new_zeros(1), ordered.cumsum(0)])


def _top(scores: Tensor, count: int) -> Tensor:
    """The boolean mask of the `count` largest scores; of equal ones the earlier is kept."""
    order = scores.flatten().sort(descending=True, stable=True).indices
    mask = torch.zeros(scores.numel(), dtype=torch.bool)
    mask[order[:count].cpu()] = True
    return mask.view(scores.shape)


def best_units(scores: Tensor, counts: Sequence[int] | Mapping[int, int]) -> Tensor:
    """The mask bool[L, u] of the `counts[l]` largest scores of each layer l; earlier ones first."""
    order = scores.sort(dim=1, descending=True, stable=True).indices
    limits = torch.tensor([counts[layer] for layer in range(len(scores))])
    places = torch.arange(scores.shape[1]) < limits[:, None]
    return torch.zeros_like(scores, dtype=torch.bool).scatter(1, order, places)
