"""Coarser patches: smaller images, cut into as many patches of fewer pixels each.

Tokens stay, so all that a tower makes of them does; what gets cheaper is the patch embedding, most
of a small tower's time, and all that prepares images. The weights are resized as in FlexiViT (arXiv
2212.08013, section 3.4), then solved for by least squares on the calibration images: what the patch
embedding makes of large images, from small ones. Images only.

    python -m compress.patch_size --patch-size 8
"""

from dataclasses import dataclass

from commands.flags import Count
from commands.run import main_of
from compress.command import run_command
from compress.options import OutputOptions, TokenOptions


@dataclass(frozen=True)
class PatchOptions(TokenOptions):
    """How many pixels patches have."""

    patch_size: tuple[Count, ...] = ()
    """side of a patch in pixels; default: half of the tower's"""


@dataclass(frozen=True)
class PatchCommandOptions(PatchOptions, OutputOptions):
    """Read smaller images, cut into as many patches, by a patch embedding solved for anew.

    Example: python -m compress.patch_size --patch-size 8
    """


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("compress.patch_size"), PatchCommandOptions, "compress.patch_size")

from dataclasses import replace
from math import inf
from typing import Any

import torch
from scipy.linalg import LinAlgError
from torch import Tensor
from torch.nn.functional import unfold
from transformers import PreTrainedModel

from compress.budgets.settings import Setting
from compress.calibrating.moments import Moments
from compress.errors import not_finite
from compress.making.rule import Rule, Step
from compress.making.source import Source
from compress.rule_command import run_rule
from compress.solving.repair import solve_best
from pruning_mechanism import Reduction, Tower, reduce
from pruning_mechanism.checkpoints.preparation import resized_processor
from pruning_mechanism.families import tower_config

HELD_OUT = 4
"""One image in so many chooses the damping."""


def rule(options: PatchOptions) -> Rule:
    """Coarser patches, of the options' sizes; None asks for half of what the tower's have."""
    asked: dict[Setting, int | None] = {
        Setting("patch", side): side for side in dict.fromkeys(options.patch_size)
    }
    asked = asked or {Setting("half patch"): None}
    return Rule("patch_size", asked, step, check)


def check(source: Source, side: int | None) -> None:
    """Raise `TowerError` for a tower that can't read patches of that side."""
    _reduction(source, side).check(source.model.config)


def step(source: Source, side: int | None) -> Step:
    """Resize the patch embedding, then solve for it."""
    made = reduce(source.model, _reduction(source, side))
    processor = resized_processor(source.processor, tower_config(made.config, "vision").image_size)
    small = replace(source.calibration, processor=processor)
    pairs = zip(source.calibration.batches("patches"), small.batches(), strict=True)
    fit, held_out = (_moments(made) for _ in range(2))
    dense, own = _embedding(source.model), tower_config(made.config, "vision").patch_size
    left_out = torch.arange(len(small)) % HELD_OUT == HELD_OUT - 1  # however they are batched
    for large_batch, small_batch in pairs:
        wanted, found = patches_of(dense, large_batch.pixels), patches(small_batch.pixels, own)
        out, left_out = left_out[: len(found)], left_out[len(found) :]
        fit.add_batch(found[~out], wanted[~out])
        held_out.add_batch(found[out], wanted[out])
    return Step(made, processor, notes=(solve(made, fit, held_out),))


def _reduction(source: Source, side: int | None) -> Reduction:
    own = tower_config(source.model.config, "vision").patch_size
    return Reduction(patch_size=own // 2 if side is None else side)


def patches(pixels: Tensor, side: int) -> Tensor:
    """The patches of images [b, c, h, w], [b, n, c * side * side], as a convolution reads them."""
    return unfold(pixels, side, stride=side).transpose(1, 2)


@torch.no_grad()
def patches_of(embedding: Any, pixels: Tensor) -> Tensor:
    """What a patch embedding makes of images, [b, n, d]."""
    made: Tensor = embedding(pixels)
    return made.flatten(2).transpose(1, 2)


def _embedding(model: PreTrainedModel) -> Any:
    return Tower.of(model).root.embeddings.patch_embedding


def _moments(model: PreTrainedModel) -> Moments:
    weight = _embedding(model).weight
    return Moments(weight[0].numel(), len(weight))


@torch.no_grad()
def solve(model: PreTrainedModel, fit: Moments, held_out: Moments) -> str:
    """Put the least squares solution into a patch embedding; says how much of it is lost.

    What is added to all patches goes into their positions: such an embedding has no bias.
    """
    embeddings: Any = Tower.of(model).root.embeddings
    kernel = embeddings.patch_embedding.weight
    weight = kernel.flatten(1).T.cpu().double()
    weight = torch.cat([weight, weight.new_zeros(1, len(kernel))])
    moments = fit + held_out
    if not moments.finite:
        raise not_finite("the patch embedding")
    lost = _lost(moments, weight)
    try:
        solved, damping = solve_best(fit, held_out, weight, 1, "reconstruct")
    except LinAlgError as error:
        return f"patch embedding: no solution ({error}); resized weights, which lose {lost:.2g}"
    if damping == inf:
        return f"patch embedding: resized weights, which lose {lost:.2g} of its variance"
    kernel.copy_(solved[:-1].T.reshape(kernel.shape))
    embeddings.position_embedding.weight[1:] += solved[-1].to(kernel)
    left = _lost(moments, solved)
    return f"the patch embedding loses {left:.2g} of its variance, resized alone {lost:.2g}"


def _lost(moments: Moments, weight: Tensor) -> float:
    """The share of the variance of targets that a weight W̃ [p + 1, d] doesn't give."""
    of_means = moments.xt[-1].square().sum().item() / moments.xx[-1, -1].item()
    spread = moments.tt - of_means
    return moments.error(weight) * moments.tt / spread if spread > 0 else 0.0


def main(options: PatchCommandOptions) -> None:
    """Resize, solve, align and save."""
    run_rule(rule(options), options)
