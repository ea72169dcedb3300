"""Recoverable pruning: keep what can't be rebuilt from the rest.

A unit is worth what is lost without it *after* the best repair. From the dense tower's second
moments H of what each output projection gets, and its weight W, the cost of losing the inputs S of
a unit with all others compensating optimally is tr(W_Sᵀ ([H⁻¹]_SS)⁻¹ W_S): the optimal brain
surgeon (Hassibi and Stork, 1992) at the level of heads and neurons. Units go greedily, cheapest
first, with exact updates of H⁻¹ and W, so one pass gives a whole order and the error at every size.
Images only: no captions, no gradients.

    python -m compress.recover --mac-constraint 0.5
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from datasets import Dataset
from torch import Tensor, nn
from tqdm import tqdm

from compress.allocate import Curve, by_curves, uniform
from compress.calibration import Batch, Calibration
from compress.command import run_command
from compress.curves import measure_curves
from compress.fisher import check_mac_constraint, split_budget
from compress.importance import Importance
from compress.repair import Moments, Repair, output_weight
from compress.rule import RuleOptions, calibrate, run_rule
from pruning_mechanism import Mask, Sublayer, embed, sublayers

Allocation = Literal["curves", "scores", "uniform"]

DAMPING = 1e-4
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


def scores(
    model: nn.Module,
    corpus: Dataset | Calibration,
    samples: int = 2048,
    seed: int = 0,
    *,
    progress: bool = False,
) -> Importance:
    """Recoverable importance of every head and neuron of `model`'s vision tower.

    The arguments are those of `compress.fisher.scores`.

    Returns:
        Importance whose score of a unit is the share of its sublayer's output variance that is
        lost, after the best compensation, once it and everything cheaper in its sublayer is gone.
    """
    calibration = calibrate(model, corpus, samples, seed)
    batches = calibration.batches("recover: moments" if progress else None)
    return importance_of(model, dense_moments(model, batches), progress)


def importance_of(
    model: nn.Module, moments: Sequence[Moments], progress: bool = False
) -> Importance:
    """Recoverable importance from the moments of the dense sublayers; see `scores`."""
    ranked = {"heads": [], "neurons": []}
    pairs = list(zip(sublayers(model), moments, strict=True))
    for sublayer, each in tqdm(pairs, desc="recover: order", disable=not progress):
        ranked[sublayer.kind].append(_scores(eliminate_units(sublayer, each)))
    return Importance(torch.stack(ranked["heads"]), torch.stack(ranked["neurons"]))


def select(
    importance: Importance,
    mac_constraint: float,
    config,
    allocate: Allocation = "uniform",
    curves: Sequence[Curve] = (),
) -> Mask:
    """The mask that keeps the units hardest to rebuild, as many a layer as `allocate` says.

    Args:
        importance: of heads and neurons, from `scores`.
        mac_constraint: kept MACs / dense MACs, in (0, 1].
        config: the tower's configuration.
        allocate: `curves` for the least loss by measured curves, `scores` for the global ranking,
            `uniform` for the same share in every layer.
        curves: from `compress.curves.measure_curves`, which `curves` needs.

    Raises:
        UserError: the constraint is outside (0, 1].
    """
    if allocate == "curves":
        return by_curves(importance, curves, mac_constraint, config)
    return (split_budget if allocate == "scores" else uniform)(importance, mac_constraint, config)


def _scores(elimination: Elimination) -> Tensor:
    """The error at which each unit goes; rounding must not undo the order."""
    found = torch.empty_like(elimination.errors)
    found[elimination.order] = elimination.errors.cummax(0).values
    return found


@torch.no_grad()
def dense_moments(model: nn.Module, batches: Iterable[Batch]) -> list[Moments]:
    """Second moments of each sublayer's features, with its own output as the target."""
    parts = sublayers(model)
    sums = [Moments(part.output.in_features, part.output.out_features) for part in parts]
    for batch in batches:
        hidden = embed(model, batch.pixels)
        for part, moments in zip(parts, sums, strict=True):
            features = part.features(hidden)
            output = part.output(features)
            moments.add_batch(features, output)
            hidden = hidden + output
    return sums


def eliminate_units(sublayer: Sublayer, moments: Moments) -> Elimination:
    """Eliminate all units of a sublayer, cheapest first; the bias compensates too."""
    covariance = centred(moments)
    weight = output_weight(sublayer)[:-1]
    variance = (weight * (covariance @ weight)).sum()
    strength = DAMPING * covariance.diagonal().mean()
    damped = covariance + strength * torch.eye(len(covariance), dtype=covariance.dtype)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    order, costs = eliminate(inverse, weight, sublayer.unit_width)
    return Elimination(order, costs.cumsum(0) / variance.clamp(min=torch.finfo(torch.float64).tiny))


def centred(moments: Moments) -> Tensor:
    """Σ (x - x̄)(x - x̄)ᵀ [p, p]: what is left of the moments when a bias is free."""
    count, total = moments.xx[-1, -1], moments.xx[:-1, -1]
    return moments.xx[:-1, :-1] - torch.outer(total, total) / count


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
        each = _unit_costs(inverse, weight, unit_width)
        unit = int(each.argmin())
        costs.append(each[unit].item())
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
    return (rows * torch.linalg.solve(blocks.permute(2, 0, 1), rows)).sum((1, 2))


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


@dataclass(frozen=True)
class RecoverOptions(RuleOptions):
    """Prune what the rest of a CLIP vision tower can rebuild; needs images only.

    Example: python -m compress.recover --mac-constraint 0.5
    """

    mac_constraint: float = 0.5
    """kept MACs / dense MACs of the encoder layers, in (0, 1]"""
    allocate: Allocation = "curves"
    """units a layer: by measured curves, by global ranking, or the same share everywhere"""
    curve_samples: int = 256
    """calibration images for the curves"""
    repair: Repair = "reconstruct"
    """what is done to the weights that stay"""


def ordered(
    model: nn.Module, calibration: Calibration, allocate: Allocation, curve_samples: int
) -> tuple[Importance, list[Curve]]:
    """All that a selection at any constraint needs: importance, and curves if asked for."""
    moments = dense_moments(model, calibration.batches("recover: moments"))
    importance = importance_of(model, moments, progress=True)
    if allocate != "curves":
        return importance, []
    few = calibration.first(curve_samples)
    return importance, measure_curves(model, importance, moments, few, "recover: curves")


def main(options: RecoverOptions) -> None:
    """Order, allocate, cut, repair and save."""
    check_mac_constraint(options.mac_constraint)

    def choose(model: nn.Module, calibration: Calibration, _texts: nn.Module) -> Mask:
        importance, curves = ordered(model, calibration, options.allocate, options.curve_samples)
        return select(importance, options.mac_constraint, model.config, options.allocate, curves)

    run_rule("recover", f"MAC {options.mac_constraint:g}", options, choose)


if __name__ == "__main__":
    run_command(main, RecoverOptions, "compress.recover")
