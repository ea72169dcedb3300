"""Head pruning by sensitivity (Michel, Levy and Neubig, arXiv 1905.10650).

The importance of a head is the mean absolute gradient of the loss with respect to its mask
(equation 2), normalised by the l2 norm of its layer's (section 4.1). Either the lowest heads of the
whole tower go, or, with `--rule all-but-one`, one layer after another keeps only its best head.

    python -m compress.sensitivity --heads 77
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from commands.flags import NumberFromZero
from commands.run import main_of
from compress.budgets.budgets import Budget, HeadBudget, check_heads
from compress.command import run_command
from compress.errors import UserError
from compress.options import OutputOptions, TowerOptions


@dataclass(frozen=True)
class HeadOptions(TowerOptions):
    """How many heads go, and by which protocol."""

    heads: tuple[NumberFromZero, ...] = (77,)
    """how many heads of the tower go; several numbers share one scoring"""
    rule: Literal["lowest", "all-but-one"] = "lowest"
    """the lowest heads of the tower, or all but the best of one layer after another"""

    def budgets(self) -> tuple[HeadBudget, ...]:
        """How many heads go, one result each.

        Raises:
            UserError: no number is named.
        """
        if not self.heads:
            raise UserError("name how many --heads go")
        return tuple(map(HeadBudget, dict.fromkeys(self.heads)))

    def check(self) -> None:
        """Raise `UserError` if no number of heads is named."""
        super().check()
        self.budgets()


@dataclass(frozen=True)
class SensitivityOptions(HeadOptions, OutputOptions):
    """Prune the least sensitive heads of a CLIP tower (arXiv 1905.10650).

    Example: python -m compress.sensitivity --heads 77
    """


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("compress.sensitivity"), SensitivityOptions, "compress.sensitivity")

import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.functional import normalize
from transformers import PreTrainedModel

from compress.allocation.plan import Plan
from compress.calibrating.calibration import Calibration, calibrate
from compress.calibrating.importance import Importance, MaskGradients, mask_gradients
from compress.calibrating.objective import Contrastive
from compress.calibrating.subject import Subject
from compress.making.pruning import planned
from compress.making.rule import Rule
from compress.rule_command import run_rule
from pruning_mechanism import Mask, Tower, TowerKind, masked
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
    progress: bool = False,
) -> Importance:
    """Normalised sensitivity of every head and neuron of one of `model`'s towers.

    The arguments are those of `compress.fisher.scores`.

    Returns:
        Importance with `heads[l, h] = mean_i |g_i[l, h]| / ‖mean_i |g_i[l]|‖₂`, `neurons` likewise.
    """
    calibration = calibrate(model, corpus, samples, seed, texts)
    groups = calibration.groups("sensitivity: gradients" if progress else None)
    objective, dense = Contrastive(texts or model, tower), Tower.of(model, tower)
    with constants_moved(dense.sublayers):
        return mean_sensitivity(mask_gradients(dense, groups, objective))


def mean_sensitivity(gradients: Iterable[MaskGradients]) -> Importance:
    """The mean absolute gradients over images, normalised in each layer."""
    sums: list[Tensor] = []
    for batch in gradients:
        added = [part.abs().sum(0) for part in (batch.heads, batch.neurons)]
        sums = [*map(torch.add, sums, added)] if sums else added
    heads, neurons = (normalize(total, dim=1).cpu() for total in sums)
    return Importance(heads, neurons)


def select(importance: Importance, heads: int, config: Config, tower: TowerKind = "vision") -> Mask:
    """The mask without the `heads` least important heads of the tower; every neuron stays.

    Raises:
        UserError: the tower has fewer heads.
    """
    dense = Mask.dense(config, tower)
    check_heads(heads, config, tower)
    lowest = importance.heads.flatten().sort(stable=True).indices[:heads]
    keep = torch.ones(importance.heads.numel(), dtype=torch.bool)
    keep[lowest] = False
    return Mask(keep.view(importance.heads.shape), dense.neurons)


def select_all_but_one(
    score: Callable[[Mask], Importance], heads: int, config: Config, tower: TowerKind = "vision"
) -> Mask:
    """The mask that the all-but-one protocol reaches when `heads` heads are gone.

    Repeats: score the tower as masked so far; in the layer that holds the most important head among
    the layers not yet cut, keep only that head.

    Args:
        score: gives the importance of the tower under a mask.
        heads: how many heads go, a multiple of (heads a layer - 1).
        config: the model's configuration, or the tower's.
        tower: which one of the model's.

    Raises:
        UserError: no number of layers gives up that many heads.
    """
    mask = Mask.dense(config, tower)
    check_heads(heads, config, tower)
    layers, per_layer = mask.heads.shape
    steps, rest = divmod(heads, per_layer - 1)
    if rest or steps > layers:
        raise UserError(
            f"all-but-one takes {per_layer - 1} heads at a time, up to "
            f"{(per_layer - 1) * layers}; {heads} is no such number"
        )
    cut = torch.zeros(layers, dtype=torch.bool)
    for _ in range(steps):
        importance = score(mask).heads.masked_fill(cut[:, None], -torch.inf)
        layer, head = divmod(int(importance.argmax()), per_layer)
        kept = mask.heads.clone()
        kept[layer] = torch.arange(per_layer) == head
        mask = Mask(kept, mask.neurons)
        cut[layer] = True
    return mask


def rule(options: HeadOptions) -> Rule:
    """Head pruning by sensitivity, by the options' protocol."""

    def score(subject: Subject, mask: Mask) -> Importance:
        model, kind = subject.model, subject.kind
        with masked(model, mask, kind):
            return scores(
                model, subject.calibration, tower=kind, texts=subject.texts, progress=True
            )

    def plan(subject: Subject, budget: Budget) -> Plan:
        if not isinstance(budget, HeadBudget):
            raise UserError(f"{budget.setting.label}: sensitivity takes a number of heads")
        of_tower = (budget.heads, subject.model.config, subject.kind)
        if options.rule == "all-but-one":
            return Plan(select_all_but_one(lambda mask: score(subject, mask), *of_tower))
        dense = Mask.dense(*of_tower[1:])
        importance = subject.once("sensitivity", lambda: score(subject, dense))
        return Plan(select(importance, *of_tower))

    return planned("sensitivity", options.budgets(), plan, captions=True)


def main(options: SensitivityOptions) -> None:
    """Score, select, repair, cut and save."""
    run_rule(rule(options), options)
