"""Fisher pruning without retraining (Kwon et al., arXiv 2204.09656).

The rule in three steps, as in the paper's figure: scores (the diagonal of the empirical Fisher
information of the masks, section 4.1), the exact best split of a MAC budget between heads and
neurons (algorithm 1), rearrangement inside each layer with the layer's full Fisher block (section
4.2). Repair, the paper's mask tuning (section 4.3), is in `compress.solving.repair`. The paper's
loss needs captions; `--objective embedding` puts the Gauss–Newton matrix of 1 - cos(pruned, dense
embedding) in the Fisher information's place (`compress.calibrating.objective.Embedding`) and needs
images only.

    python -m compress.fisher --mac-constraint 0.65
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar

from commands.run import main_of
from compress.choices import Allocation, ObjectiveName
from compress.command import run_command
from compress.options import BudgetOptions, OutputOptions


@dataclass(frozen=True)
class ScoreOptions(BudgetOptions):
    """What units are scored by, and under which budget they are kept."""

    objective: ObjectiveName = "contrastive"
    """what units are scored by: images find their captions, or embeddings stay (images only)"""

    usual_allocation: ClassVar = "scores"


@dataclass(frozen=True)
class FisherOptions(ScoreOptions, OutputOptions):
    """Prune a CLIP tower by Fisher information (arXiv 2204.09656).

    Example: python -m compress.fisher --mac-constraint 0.65
    """


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("compress.fisher"), FisherOptions, "compress.fisher")

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedModel

from compress.allocation.allocate import Curves, allocated
from compress.budgets.prices import Prices, as_prices
from compress.calibrating.calibration import Calibration, calibrate
from compress.calibrating.importance import Importance, MaskGradients, mask_gradients
from compress.calibrating.objective import PROJECTIONS, objective_named
from compress.calibrating.subject import Subject
from compress.making.pruning import Scoring, pruning
from compress.making.rule import Rule
from compress.rule_command import run_rule
from pruning_mechanism import Mask, Tower, TowerKind
from pruning_mechanism.heads import constants_moved
from pruning_mechanism.protocols import Config


def scores(
    model: PreTrainedModel,
    corpus: Dataset | Calibration,
    samples: int = 2048,
    seed: int = 0,
    *,
    tower: TowerKind = "vision",
    texts: PreTrainedModel | None = None,
    objective: ObjectiveName = "contrastive",
    projections: int = PROJECTIONS,
    progress: bool = False,
) -> Importance:
    """Scores and blocks of every head and neuron of one of `model`'s towers.

    Args:
        model: a CLIP, or a vision tower with projection.
        corpus: images and captions to draw `samples` from with `seed`, or a sample drawn already.
        samples: how many images are used; ignored if the sample is drawn already.
        seed: of the draw, and of the projections.
        tower: which one; the contrastive loss leaves the other as it is.
        texts: the CLIP whose text tower embeds the captions, if `model` has none.
        objective: contrastive, or embedding, which needs only what the tower itself takes.
        projections: an image, for embedding; at most the dimensions of the embedding, with which
            its scores and blocks are exact.
        progress: whether to show a bar.

    Returns:
        Importance with `heads[l, h] = Σ_i g_i[l, h]²` over images i (and projections), `neurons`
        likewise, and the blocks `Σ_i g_i[l] g_i[l]ᵀ` of each layer, on the CPU. A constant that a
        head adds whatever it sees counts as the layer's, not the head's.

    Raises:
        UserError: captions are needed and missing, or activations or gradients are not finite.
        TowerError: the model has no such tower that fits.
    """
    losses = objective_named(objective, texts or model, projections, seed, tower)
    calibration = calibrate(model, corpus, samples, seed, texts)
    groups = calibration.groups("fisher: gradients" if progress else None)
    dense = Tower.of(model, tower)
    with constants_moved(dense.sublayers):
        return fisher_information(mask_gradients(dense, groups, losses))


def fisher_information(gradients: Iterable[MaskGradients]) -> Importance:
    """The sums of g gᵀ over images and losses, and their diagonals."""
    blocks: list[Tensor] = []
    for batch in gradients:
        parts = [part.transpose(0, 1) for part in (batch.heads, batch.neurons)]  # [L, b, u]
        blocks = blocks or [part.new_zeros(len(part), *[part.shape[2]] * 2) for part in parts]
        for block, part in zip(blocks, parts, strict=True):
            block.baddbmm_(part.mT, part)
    heads, neurons = (block.cpu() for block in blocks)
    return Importance(
        heads.diagonal(dim1=1, dim2=2).clone(),
        neurons.diagonal(dim1=1, dim2=2).clone(),
        heads,
        neurons,
    )


def select(
    importance: Importance,
    budget: float | Prices,
    config: Config | None = None,
    tower: TowerKind = "vision",
    allocate: Allocation = "scores",
    curves: Curves | None = None,
) -> Mask:
    """The mask that keeps most importance under a budget, rearranged inside its layers.

    Args:
        importance: scores of heads and neurons; rearranged only if it has Fisher blocks.
        budget: kept MACs / dense MACs, in (0, 1], or what sizes cost under another budget.
        config: the model's configuration, or the tower's; not read where there are prices.
        tower: which one of the model's.
        allocate: `scores` for the exact best split (algorithm 1), `curves` for the least loss by
            measured curves, `uniform` for the same share in every layer.
        curves: from `compress.allocation.curves.measure_curves`, which `curves` needs.

    Raises:
        UserError: the budget is out of range, or can't be met.
    """
    prices = as_prices(budget, config, tower)
    return rearranged(importance, allocated(importance, prices, allocate, curves))


def rearranged(importance: Importance, mask: Mask) -> Mask:
    """The mask with as many units a layer, chosen anew by the Fisher blocks if there are any."""
    if importance.head_block is None or importance.neuron_block is None:
        return mask
    return replace(
        mask,
        heads=_rearrange_layers(importance.head_block, mask.heads),
        neurons=_rearrange_layers(importance.neuron_block, mask.neurons),
    )


def _rearrange_layers(blocks: Tensor, keep: Tensor) -> Tensor:
    return torch.stack([rearrange(*pair) for pair in zip(blocks, keep, strict=True)])


def rearrange(block: Tensor, keep: Tensor) -> Tensor:
    """Which units of one layer to keep, their number given, by the layer's full Fisher block.

    Minimises the quadratic form sᵀ F s over the indicator s of the dropped units by greedy swaps
    that start from the diagonal's choice (section 4.2): each kept unit in order of its own score is
    added to the dropped ones, and whichever of them is then best kept takes its place. Passes are
    repeated until none swaps; each lowers the form.

    Args:
        block: the layer's Fisher block F `[u, u]`.
        keep: the units kept so far, `bool[u]`.
    """
    dropped = ~keep.clone()
    if keep.all() or dropped.all():
        return keep.clone()
    block = block.double()
    diagonal = block.diagonal()
    pull = block @ dropped.double()  # F s
    swapped = True
    while swapped:
        swapped = False
        kept = (~dropped).nonzero().flatten()
        for unit in kept[diagonal[kept].argsort(stable=True)].tolist():
            # form without unit j, less the form with all of them: F_jj - 2 (F s)_j
            with_unit = pull + block[unit]
            change = torch.where(dropped, diagonal - 2 * with_unit, torch.inf)
            best = int(change.argmin())
            own = float(diagonal[unit] - 2 * with_unit[unit])
            if change[best] < own - 1e-12 * abs(own):
                dropped[unit], dropped[best] = True, False
                pull = with_unit - block[best]
                swapped = True
    return ~dropped


def rule(options: ScoreOptions) -> Rule:
    """Fisher pruning under the options' budgets."""

    def score(subject: Subject) -> Importance:
        return scores(
            subject.model,
            subject.calibration,
            seed=options.seed,
            tower=subject.kind,
            texts=subject.texts,
            objective=options.objective,
            progress=True,
        )

    captions = options.objective == "contrastive"
    scoring = Scoring(score, ("fisher", options.objective, options.seed), captions)
    return pruning("fisher", options.budgets(), scoring, select, options.spending)


def main(options: FisherOptions) -> None:
    """Score, select, repair, cut and save."""
    run_rule(rule(options), options)
