"""Allocation: how many heads and neurons each layer keeps under a budget.

Stands between importance, which orders the units inside a sublayer, and mask. `uniform` gives every
layer the same share; `by_curves` spends the budget where it is worth most: for each sublayer a
curve says what the final embedding loses at each size, and the sizes of least total loss are found
exactly by dynamic programming.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator
from torch import Tensor

from compress.fisher import check_mac_constraint
from compress.importance import Importance
from pruning_mechanism import Mask, Shape

NEURON_STEPS = 64
"""Sizes of an MLP that an allocation chooses from."""


@dataclass(frozen=True)
class Curve:
    """What the final embedding loses when one sublayer keeps only some of its units.

    `sizes` ascend from 0 to all units; `losses` are mean 1 - cos to the dense embedding, measured
    with the sublayer alone pruned and its output compensated.
    """

    layer: int
    kind: str
    sizes: tuple[int, ...]
    losses: tuple[float, ...]

    def at(self, sizes: np.ndarray) -> np.ndarray:
        """Losses at any sizes, by monotone cubic interpolation; never rising with size."""
        falling = np.maximum.accumulate(np.asarray(self.losses)[::-1])[::-1]
        return PchipInterpolator(self.sizes, falling)(sizes)


@dataclass(frozen=True)
class Choices:
    """What one sublayer may cost, and what it then loses; arrays of equal length."""

    costs: np.ndarray
    losses: np.ndarray


def cheapest_loss(choices: Sequence[Choices], budget: float) -> list[int]:
    """One choice for each sublayer, of least total loss within the budget: exact.

    Keeps, sublayer by sublayer, every total cost that isn't beaten in both cost and loss.

    Raises:
        ValueError: even the cheapest choices exceed the budget.
    """
    costs, losses, steps = np.zeros(1), np.zeros(1), []
    rest = sum(each.costs.min() for each in choices)
    for each in choices:
        rest -= each.costs.min()
        total = (costs[:, None] + each.costs).ravel()
        lost = (losses[:, None] + each.losses).ravel()
        within = np.flatnonzero(total + rest <= budget)
        order = within[np.lexsort((lost[within], total[within]))]
        best = np.minimum.accumulate(lost[order])
        kept = order[np.concatenate([[True], best[1:] < best[:-1]])] if len(order) else order
        if not len(kept):
            raise ValueError(f"no choice fits the budget {budget:g}")
        steps.append((kept // len(each.costs), kept % len(each.costs)))
        costs, losses = total[kept], lost[kept]
    found, state = [], len(costs) - 1  # the dearest kept state loses least
    for parents, chosen in reversed(steps):
        found.append(int(chosen[state]))
        state = int(parents[state])
    return found[::-1]


def by_curves(
    importance: Importance, curves: Sequence[Curve], mac_constraint: float, config
) -> Mask:
    """The mask whose sizes lose least by the curves, each sublayer keeping its best units.

    Raises:
        UserError: the constraint is outside (0, 1].
    """
    check_mac_constraint(mac_constraint)
    shape = Shape.of(config, dense=True)
    price = {"heads": shape.head_macs, "neurons": shape.neuron_macs}
    sizes = [_sizes(curve) for curve in curves]
    choices = [
        Choices(each * float(price[curve.kind]), curve.at(each))
        for curve, each in zip(curves, sizes, strict=True)
    ]
    chosen = cheapest_loss(choices, shape.budget(mac_constraint))
    keep = {(c.layer, c.kind): int(s[i]) for c, s, i in zip(curves, sizes, chosen, strict=True)}
    return Mask(
        best_units(importance.heads, [keep[layer, "heads"] for layer in range(len(shape.heads))]),
        best_units(
            importance.neurons, [keep[layer, "neurons"] for layer in range(len(shape.heads))]
        ),
    )


def _sizes(curve: Curve) -> np.ndarray:
    """The sizes that an allocation chooses from: every number of heads, steps of neurons."""
    most = curve.sizes[-1]
    return np.unique(np.round(np.linspace(0, most, min(most, NEURON_STEPS) + 1)).astype(int))


def uniform(importance: Importance, mac_constraint: float, config) -> Mask:
    """The mask that keeps the same share of heads and of neurons in every layer.

    The number of heads is rounded down, and neurons take what the heads leave of the budget.

    Raises:
        UserError: the constraint is outside (0, 1].
    """
    check_mac_constraint(mac_constraint)
    shape = Shape.of(config, dense=True)
    layers = len(shape.heads)
    heads = int(shape.heads[0] * mac_constraint)
    left = shape.budget(mac_constraint) // layers - heads * shape.head_macs
    neurons = min(shape.neurons[0], left // shape.neuron_macs)
    return Mask(
        best_units(importance.heads, [heads] * layers),
        best_units(importance.neurons, [neurons] * layers),
    )


def best_units(scores: Tensor, counts: Sequence[int]) -> Tensor:
    """The mask bool[L, u] of the `counts[l]` largest scores of each layer l; earlier ones first."""
    order = scores.sort(dim=1, descending=True, stable=True).indices
    places = torch.arange(scores.shape[1]) < torch.tensor(counts)[:, None]
    return torch.zeros_like(scores, dtype=torch.bool).scatter(1, order, places)
