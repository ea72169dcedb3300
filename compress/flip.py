"""Patch masking: only some of an image's patches are embedded and go through the tower.

The rule of FLIP (arXiv 2212.00794), used here without training: the class token and the patches
that are kept, each with its own position. `grid` keeps the same evenly spread patches of every
image, `random` the same seeded subset, `saliency` each image's own patches of most contrast.

    python -m compress.flip --mask 0.5
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from commands.flags import Share, by_default
from commands.run import main_of
from compress.budgets.budgets import MacBudget
from compress.choices import PatchRule
from compress.command import run_command
from compress.options import MaskShare, OutputOptions, TokenOptions


@dataclass(frozen=True)
class MaskingOptions(TokenOptions):
    """Which patches are left out, and how many."""

    mask: Annotated[tuple[MaskShare, ...], by_default("0.5")] = ()
    """share of the patches that is left out, in [0, 1); several share the last stage's pass"""
    mac_constraint: tuple[Share, ...] = ()
    """instead: kept MACs / dense MACs of the encoder layers, in (0, 1]"""
    keep: PatchRule = "grid"
    """patches evenly spread, a seeded random subset, or those of most contrast"""

    exclusive: ClassVar = (("mask", "mac_constraint"),)


@dataclass(frozen=True)
class FlipOptions(MaskingOptions, OutputOptions):
    """Leave out patches of every image (FLIP, arXiv 2212.00794).

    Example: python -m compress.flip --mask 0.5 --keep grid
    """


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("compress.flip"), FlipOptions, "compress.flip")

from compress.making.reducing import asked_of, reducing, within
from compress.making.rule import Rule
from compress.rule_command import run_rule
from pruning_mechanism import Reduction, Shape
from pruning_mechanism.protocols import Config

USUAL_MASKS = (0.5,)
"""The share that is masked if none is asked for."""


def rule(options: MaskingOptions) -> Rule:
    """Patch masking at the options' shares or under their budgets."""

    def choose(config: Config, asked: float | MacBudget) -> Reduction:
        patches = int(Shape.of(config, dense=True).tokens) - 1
        if not isinstance(asked, MacBudget):
            return _kept(max(1, round((1 - asked) * patches)), options)
        every = [_kept(count, options) for count in range(1, patches + 1)]
        return within(config, every, asked)

    asked = asked_of("mask", options.mask or USUAL_MASKS, options.mac_constraint)
    return reducing("flip", asked, choose)


def _kept(patches: int, options: MaskingOptions) -> Reduction:
    return Reduction(kept_patches=patches, patch_rule=options.keep, patch_seed=options.seed)


def main(options: FlipOptions) -> None:
    """Leave out, align and save."""
    run_rule(rule(options), options)
