"""Greedy elimination of units, everything that stays compensating at every step.

The optimal brain surgeon (Hassibi and Stork, 1992) at the level of heads and neurons. With H the
second moments of what an output projection gets, and W its weight, the cost of losing the inputs S
of a unit with all others compensating optimally is tr(W_Sᵀ ([H⁻¹]_SS)⁻¹ W_S). The cheapest unit
goes, H⁻¹ and W are updated exactly, and so on: one pass gives a whole order and the error at every
size. H is damped in units that don't depend on how a head is written (`compress.solving.damping`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from compress.calibrating.importance import Importance
from compress.calibrating.moments import Moments, output_weight
from compress.errors import not_finite, place_of
from compress.solving.damping import Bases
from pruning_mechanism import Tower

DAMPING = 1e-4
"""λ, in standardised units."""
ROUNDING = 1e-6
"""Share of the moments below which a variance is taken for the rounding of float32 sums."""
BLOCK = 64
CANDIDATES = 4


@dataclass(frozen=True)
class Elimination:
    """In which order a sublayer's units go, and what is lost by then.

    `order` [u] names the unit that goes first, second, …; `errors` [u] is ‖lost output‖² after each
    of these steps, all remaining units compensating, as a share of the output's variance.
    """

    order: Tensor
    errors: Tensor


def importance_of(tower: Tower, moments: Sequence[Moments], progress: bool = False) -> Importance:
    """Recoverable importance from moments of the sublayers; see `compress.recover.scores`.

    Raises:
        UserError: moments are not finite.
    """
    ranked: dict[str, list[Tensor]] = {"heads": [], "neurons": []}
    pairs = list(zip(tower.sublayers, moments, strict=True))
    for part, part_moments in tqdm(pairs, desc="order", unit="sublayer", disable=not progress):
        if not part_moments.finite:
            raise not_finite(place_of(part.layer, part.kind))
        found = eliminate_units(part_moments, output_weight(part), part.unit_width)
        ranked[part.kind].append(_scores(found))
    return Importance(torch.stack(ranked["heads"]), torch.stack(ranked["neurons"]))


def _scores(elimination: Elimination) -> Tensor:
    """The error at which each unit goes; rounding must not undo the order."""
    found = torch.empty_like(elimination.errors)
    found[elimination.order] = elimination.errors.cummax(0).values
    return found


def eliminate_units(moments: Moments, weight: Tensor, unit_width: int) -> Elimination:
    """Eliminate all units of a sublayer, cheapest first; the bias compensates too.

    Args:
        moments: of what the output projection gets, u * unit_width inputs.
        weight: W̃ [u * unit_width + 1, d], float64, its last row the bias.
        unit_width: inputs of a unit: the head dimension, or 1.

    Returns:
        The order and the errors; where the output is constant, the bias alone rebuilds it, and the
        errors are 0.

    Raises:
        ValueError: the moments are not finite.
    """
    if not moments.finite:
        raise ValueError("the moments are not finite")
    covariance, weight = moments.centred().xx, weight[:-1]
    variance = (weight * (covariance @ weight)).sum()
    power = (weight * (moments.xx[:-1, :-1] @ weight)).sum()
    bases = Bases.of(moments, unit_width)
    inverse = _damped_inverse(bases.normal(covariance))
    order, costs = eliminate(inverse, bases.weight(weight), unit_width)
    if variance <= ROUNDING * power:
        return Elimination(order, torch.zeros_like(costs))
    return Elimination(order, costs.cumsum(0) / variance)


def _damped_inverse(covariance: Tensor) -> Tensor:
    """(H + λ)⁻¹, λ = `DAMPING`, or ten times that, … until H + λ is positive definite.

    What rounding leaves of inputs that never change may be negative.
    """
    strength = DAMPING
    unit = torch.eye(len(covariance), dtype=covariance.dtype)
    factor, failed = torch.linalg.cholesky_ex(covariance + strength * unit)
    while failed:
        strength *= 10
        factor, failed = torch.linalg.cholesky_ex(covariance + strength * unit)
    return torch.cholesky_inverse(factor)


def eliminate(inverse: Tensor, weight: Tensor, unit_width: int) -> tuple[Tensor, Tensor]:
    """Remove all units one by one, each time the one whose loss costs least.

    After a step, H⁻¹ ← H⁻¹ - B C Bᵀ and W ← W - B C W_S, with B the columns of H⁻¹ that belong to
    the unit's inputs S and C = ([H⁻¹]_SS)⁻¹. The steps run on the `CANDIDATES`·`BLOCK` units that
    are cheapest when a block starts; the rest is brought up to date once a block, so almost all of
    the work is multiplication of matrices.

    Args:
        inverse: H⁻¹ [p, p], float64; p = units · unit_width.
        weight: W [p, d], float64.
        unit_width: inputs of a unit.

    Returns:
        The order [u] and what each step adds to ‖(X - X̂) W‖² [u].
    """
    remaining = torch.arange(len(weight) // unit_width)
    order, costs = [], []
    while len(remaining):
        removed, steps = _eliminate_block(inverse, weight, unit_width)
        order += remaining[removed].tolist()
        costs += steps
        inverse, weight = _without(inverse, weight, _inputs(removed, unit_width))
        keep = torch.ones(len(remaining), dtype=torch.bool)
        keep[removed] = False
        remaining = remaining[keep]
    return torch.tensor(order), torch.tensor(costs, dtype=weight.dtype)


def _eliminate_block(
    inverse: Tensor, weight: Tensor, unit_width: int
) -> tuple[Tensor, list[float]]:
    """The next units to go, as positions, and their costs."""
    cheapest = _unit_costs(inverse, weight, unit_width).argsort(stable=True)
    candidates = cheapest[: CANDIDATES * BLOCK]
    inputs = _inputs(candidates, unit_width)
    inverse = inverse[inputs][:, inputs]
    weight = torch.linalg.qr(weight[inputs].T, mode="r").R.T  # the same products, fewer columns
    removed, costs = [], []
    for _ in range(min(BLOCK, len(candidates))):
        unit_costs = _unit_costs(inverse, weight, unit_width)
        unit = int(unit_costs.argmin())
        costs.append(unit_costs[unit].item())
        removed.append(candidates[unit])
        candidates = torch.cat([candidates[:unit], candidates[unit + 1 :]])
        gone = _inputs(torch.tensor([unit]), unit_width)
        inverse, weight = _without(inverse, weight, gone)
    return torch.stack(removed), costs


def _unit_costs(inverse: Tensor, weight: Tensor, unit_width: int) -> Tensor:
    """tr(W_Sᵀ ([H⁻¹]_SS)⁻¹ W_S) of every unit [u]."""
    if unit_width == 1:
        return weight.square().sum(1) / inverse.diagonal()
    units = len(weight) // unit_width
    blocks = inverse.view(units, unit_width, units, unit_width).diagonal(dim1=0, dim2=2)
    rows = weight.unflatten(0, (units, unit_width))
    found: Tensor = (rows * torch.linalg.solve(blocks.permute(2, 0, 1), rows)).sum((1, 2))
    return found


def _inputs(units: Tensor, unit_width: int) -> Tensor:
    """Positions of the inputs of these units."""
    return (units[:, None] * unit_width + torch.arange(unit_width)).flatten()


def _without(inverse: Tensor, weight: Tensor, gone: Tensor) -> tuple[Tensor, Tensor]:
    """H⁻¹ and W of the inputs that stay, those `gone` eliminated exactly."""
    stay = torch.ones(len(weight), dtype=torch.bool)
    stay[gone] = False
    share = torch.linalg.solve(inverse[gone][:, gone], inverse[gone][:, stay]).T
    return (
        inverse[stay][:, stay] - share @ inverse[gone][:, stay],
        weight[stay] - share @ weight[gone],
    )
