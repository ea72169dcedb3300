"""Recoverable pruning: keep what can't be rebuilt from the rest.

A unit is worth what is lost without it *after* the best repair: `compress.solving.eliminate` takes
the units of a sublayer away one by one, everything that stays compensating, and the error at which
a unit goes is its importance. By default the sizes of the sublayers are then allocated by measured
curves. Images only, or for a text tower texts only.

    python -m compress.recover --mac-constraint 0.5
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from datasets import Dataset
from torch import Tensor, nn
from tqdm import tqdm

from compress.allocation.allocate import Curve, by_curves, split_budget, uniform
from compress.allocation.plan import make_plan
from compress.budgets.prices import Constraint, Prices
from compress.calibrating.calibration import Calibration, calibrate
from compress.calibrating.importance import Importance
from compress.calibrating.token_weights import token_weights
from compress.command import run_command
from compress.errors import not_finite, place_of
from compress.making.dense import WEIGHT_SAMPLES, DenseTower
from compress.making.options import Allocation, BudgetOptions, OutputOptions
from compress.making.rule import Rule, run_rule
from compress.making.smaller import Plan
from compress.solving.eliminate import Elimination, eliminate_units
from compress.solving.moments import Moments, dense_moments, output_weight
from pruning_mechanism import Mask, Tower, TowerKind


def scores(
    model: nn.Module,
    corpus: Dataset | Calibration,
    samples: int = 2048,
    seed: int = 0,
    *,
    tower: TowerKind = "vision",
    progress: bool = False,
) -> Importance:
    """Recoverable importance of every head and neuron of one of `model`'s towers.

    The arguments are those of `compress.fisher.scores`.

    Returns:
        Importance whose score of a unit is the share of its sublayer's output variance that is
        lost, after the best compensation, once it and everything cheaper in its sublayer is gone.
    """
    calibration = calibrate(model, corpus, samples, seed)
    dense = Tower.of(model, tower)
    weights = token_weights(dense, calibration.first(WEIGHT_SAMPLES))
    batches = calibration.batches("moments" if progress else None)
    return importance_of(dense, dense_moments(dense, batches, weights), progress)


def importance_of(tower: Tower, moments: Sequence[Moments], progress: bool = False) -> Importance:
    """Recoverable importance from the moments of the dense sublayers; see `scores`.

    Raises:
        UserError: moments are not finite.
    """
    ranked = {"heads": [], "neurons": []}
    pairs = list(zip(tower.sublayers, moments, strict=True))
    for part, each in tqdm(pairs, desc="order", unit="sublayer", disable=not progress):
        if not each.finite:
            raise not_finite(place_of(part.layer, part.kind))
        found = eliminate_units(each, output_weight(part), part.unit_width)
        ranked[part.kind].append(_scores(found))
    return Importance(torch.stack(ranked["heads"]), torch.stack(ranked["neurons"]))


def select(
    importance: Importance,
    mac_constraint: float,
    config,
    allocate: Allocation = "uniform",
    curves: Sequence[Curve] = (),
    tower: TowerKind = "vision",
) -> Mask:
    """The mask that keeps the units hardest to rebuild, as many a layer as `allocate` says.

    Args:
        importance: of heads and neurons, from `scores`.
        mac_constraint: kept MACs / dense MACs, in (0, 1].
        config: the model's configuration, or the tower's.
        allocate: `curves` for the least loss by measured curves, `scores` for the global ranking,
            `uniform` for the same share in every layer.
        curves: from `compress.allocation.curves.measure_curves`, which `curves` needs.
        tower: which one of the model's.

    Raises:
        UserError: the constraint is outside (0, 1].
    """
    prices = Prices.in_macs(config, mac_constraint, tower)
    if allocate == "curves":
        return by_curves(importance, curves, prices)
    return (split_budget if allocate == "scores" else uniform)(importance, prices)


def _scores(elimination: Elimination) -> Tensor:
    """The error at which each unit goes; rounding must not undo the order."""
    found = torch.empty_like(elimination.errors)
    found[elimination.order] = elimination.errors.cummax(0).values
    return found


@dataclass(frozen=True)
class RecoverOptions(BudgetOptions, OutputOptions):
    """Prune what the rest of a CLIP tower can rebuild; needs images only, or texts only.

    Example: python -m compress.recover --mac-constraint 0.5
    """


def rule(options: BudgetOptions) -> Rule:
    """Recoverable pruning under the options' constraints."""

    def plan(dense: DenseTower, constraint: Constraint) -> Plan:
        def order() -> Importance:
            return importance_of(dense.tower, dense.moments(), progress=True)

        importance = dense.once("recover", order)
        return make_plan(dense, importance, constraint, options, options.usual_allocation)

    return Rule("recover", options.constraints(), plan, structures=options.structures)


def main(options: RecoverOptions) -> None:
    """Order, allocate, cut, repair and save."""
    run_rule(rule(options), options)


if __name__ == "__main__":
    run_command(main, RecoverOptions, "compress.recover")
