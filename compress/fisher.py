"""Fisher pruning without retraining (Kwon et al., arXiv 2204.09656).

The rule in three steps, as in the paper's figure: scores (the diagonal of the empirical Fisher
information of the masks, section 4.1), the exact best split of a MAC budget between heads and
neurons (algorithm 1), rearrangement inside each layer with the layer's full Fisher block (section
4.2). Repair, the paper's mask tuning (section 4.3), is in `compress.repair`.

    python -m compress.fisher --mac-constraint 0.65
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from datasets import Dataset
from torch import Tensor, nn

from compress.calibration import Calibration
from compress.command import UserError, run_command
from compress.importance import Importance, MaskGradients, mask_gradients
from compress.rule import RuleOptions, calibrate, run_rule
from pruning_mechanism import Mask, Shape


def scores(
    model: nn.Module,
    corpus: Dataset | Calibration,
    samples: int = 2048,
    seed: int = 0,
    *,
    texts: nn.Module | None = None,
    progress: bool = False,
) -> Importance:
    """Fisher scores and Fisher blocks of every head and neuron of `model`'s vision tower.

    Args:
        model: a CLIP, or a vision tower with projection.
        corpus: images and captions to draw `samples` from with `seed`, or a sample drawn already.
        samples: how many images are used; ignored if the sample is drawn already.
        seed: of the draw.
        texts: the CLIP whose text tower embeds the captions, if `model` has none.
        progress: whether to show a bar.

    Returns:
        Importance with `heads[l, h] = Σ_i g_i[l, h]²` over images i, `neurons` likewise, and the
        blocks `Σ_i g_i[l] g_i[l]ᵀ` of each layer, on the CPU.
    """
    calibration = calibrate(model, corpus, samples, seed)
    batches = calibration.batches("fisher: gradients" if progress else None)
    return fisher_information(mask_gradients(model, batches, texts))


def fisher_information(gradients: Iterable[MaskGradients]) -> Importance:
    """The empirical Fisher information of the masks, summed over per-image gradients."""
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


def select(importance: Importance, mac_constraint: float, config) -> Mask:
    """The mask that keeps most importance at `mac_constraint`, rearranged inside its layers.

    Args:
        importance: scores of heads and neurons; rearranged only if it has Fisher blocks.
        mac_constraint: kept MACs / dense MACs, in (0, 1].
        config: the tower's configuration.

    Raises:
        UserError: the constraint is outside (0, 1].
    """
    mask = split_budget(importance, mac_constraint, config)
    if importance.head_block is None or importance.neuron_block is None:
        return mask
    return Mask(
        _rearrange_layers(importance.head_block, mask.heads),
        _rearrange_layers(importance.neuron_block, mask.neurons),
    )


def split_budget(importance: Importance, mac_constraint: float, config) -> Mask:
    """The exact best split of a MAC budget between heads and neurons (algorithm 1).

    All heads cost the same, and so do all neurons. So for each number of heads the best mask keeps
    the most important ones, and as many of the most important neurons as the rest of the budget
    pays for; trying every number of heads finds the optimum. Of equal sums the one that uses more
    of the budget is taken.

    Raises:
        UserError: the constraint is outside (0, 1].
    """
    check_mac_constraint(mac_constraint)
    shape = Shape.of(config, dense=True)
    budget = shape.budget(mac_constraint)
    kept_by_heads = _prefix_sums(importance.heads)
    kept_by_neurons = _prefix_sums(importance.neurons)
    heads = torch.arange(min(len(kept_by_heads) - 1, budget // shape.head_macs) + 1)
    left = budget - heads * shape.head_macs
    neurons = (left // shape.neuron_macs).clamp(max=len(kept_by_neurons) - 1)
    kept = kept_by_heads[heads] + kept_by_neurons[neurons]
    used = heads * shape.head_macs + neurons * shape.neuron_macs
    best = max(range(len(heads)), key=lambda i: (kept[i].item(), used[i].item()))
    return Mask(
        _top(importance.heads, int(heads[best])), _top(importance.neurons, int(neurons[best]))
    )


def check_mac_constraint(mac_constraint: float) -> None:
    """Raise `UserError` unless the constraint is in (0, 1]."""
    if not 0 < mac_constraint <= 1:
        raise UserError(f"--mac-constraint must be in (0, 1], found {mac_constraint}")


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


@dataclass(frozen=True)
class FisherOptions(RuleOptions):
    """Prune a CLIP vision tower by Fisher information (arXiv 2204.09656).

    Example: python -m compress.fisher --mac-constraint 0.65
    """

    mac_constraint: float = 0.5
    """kept MACs / dense MACs of the encoder layers, in (0, 1]"""


def main(options: FisherOptions) -> None:
    """Score, select, repair, cut and save."""
    check_mac_constraint(options.mac_constraint)

    def choose(model: nn.Module, calibration: Calibration, texts: nn.Module) -> Mask:
        importance = scores(model, calibration, texts=texts, progress=True)
        return select(importance, options.mac_constraint, model.config)

    run_rule("fisher", f"MAC {options.mac_constraint:g}", options, choose)


if __name__ == "__main__":
    run_command(main, FisherOptions, "compress.fisher")
