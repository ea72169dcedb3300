"""Recoverable pruning: keep what can't be rebuilt from the rest.

A unit is worth what is lost without it *after* the best repair: `compress.solving.eliminate` takes
the units of a sublayer away one by one, everything that stays compensating, and the error at which
a unit goes is its importance. By default the sizes of the sublayers are then allocated by measured
curves. Images only, or for a text tower texts only.

    python -m compress.recover --mac-constraint 0.5
"""

from dataclasses import dataclass

from commands.run import main_of
from compress.choices import Allocation
from compress.command import run_command
from compress.options import BudgetOptions, OutputOptions


@dataclass(frozen=True)
class RecoverOptions(BudgetOptions, OutputOptions):
    """Prune what the rest of a CLIP tower can rebuild; needs images only, or texts only.

    Example: python -m compress.recover --mac-constraint 0.5
    """


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("compress.recover"), RecoverOptions, "compress.recover")

from datasets import Dataset
from transformers import PreTrainedModel

from compress.allocation.allocate import Curves, allocated
from compress.budgets.prices import Prices, as_prices
from compress.calibrating.calibration import Calibration, calibrate
from compress.calibrating.importance import Importance
from compress.calibrating.moments import dense_moments
from compress.calibrating.subject import WEIGHT_SAMPLES, Subject
from compress.calibrating.token_weights import token_weights
from compress.making.pruning import Scoring, pruning
from compress.making.rule import Rule
from compress.rule_command import run_rule
from compress.solving.eliminate import importance_of
from pruning_mechanism import Mask, Tower, TowerKind
from pruning_mechanism.protocols import Config


def scores(
    model: PreTrainedModel,
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


def select(
    importance: Importance,
    budget: float | Prices,
    config: Config | None = None,
    allocate: Allocation = "uniform",
    curves: Curves | None = None,
    tower: TowerKind = "vision",
) -> Mask:
    """The mask that keeps the units hardest to rebuild, as many a layer as `allocate` says.

    Args:
        importance: of heads and neurons, from `scores`.
        budget: kept MACs / dense MACs, in (0, 1], or what sizes cost under another budget.
        config: the model's configuration, or the tower's; not read where there are prices.
        allocate: `curves` for the least loss by measured curves, `scores` for the global ranking,
            `uniform` for the same share in every layer.
        curves: from `compress.allocation.curves.measure_curves`, which `curves` needs.
        tower: which one of the model's.

    Raises:
        UserError: the budget is out of range, or can't be met.
    """
    return allocated(importance, as_prices(budget, config, tower), allocate, curves)


def rule(options: BudgetOptions) -> Rule:
    """Recoverable pruning under the options' budgets."""

    def score(subject: Subject) -> Importance:
        return importance_of(subject.tower, subject.moments(), progress=True)

    scoring = Scoring(score, ("recover", options.samples))
    return pruning("recover", options.budgets(), scoring, select, options.spending)


def main(options: RecoverOptions) -> None:
    """Order, allocate, cut, repair and save."""
    run_rule(rule(options), options)
