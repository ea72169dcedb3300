"""Patch masking: only some of an image's patches are embedded; part of every checkpoint.

Each keeps its own position. The same patches stay in all images, at random (FLIP, arXiv 2212.00794)
or evenly spread, or each image keeps those of most contrast.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from .checks import check_choice, check_cuttable, check_range, is_whole, short
from .token_rule import TokenRule, TowerSizes
from .tokens import grid_patches, random_patches, salient_patches

PATCH_RULES = ("random", "grid", "saliency")
"""What `patch_rule` may be; the first if nothing is said."""


@dataclass(frozen=True)
class PatchMasking(TokenRule):
    """Embed `kept_patches` patches, chosen by `patch_rule`; random ones are drawn by a seed."""

    kept_patches: int | None = None
    patch_rule: str | None = None
    patch_seed: int | None = None

    def check(self, config: TowerSizes, beside: Sequence[TokenRule]) -> None:
        """Refuse unknown rules, and more patches than there are."""
        check_choice("patch_rule", self.patch_rule, PATCH_RULES)
        if self.kept_patches is None:
            raise ValueError("patch_rule and patch_seed are of kept_patches; all are kept")
        if any(rule.sides() for rule in beside):
            raise ValueError("patches are left out of images of one size only, not of several")
        check_cuttable(config.image_size, config.patch_size)
        patches = (config.image_size // config.patch_size) ** 2
        if not is_whole(self.kept_patches) or not 1 <= self.kept_patches <= patches:
            raise ValueError(f"{short(self.kept_patches)} kept patches: images have {patches}")
        check_range("patch_seed", self.patch_seed, 0, 2**63 - 1)
        if self.patch_rule == "saliency" and config.patch_size == 1:
            raise ValueError("patches of one pixel have no contrast to be chosen by (saliency)")

    def patches(self, patches: int) -> int:
        """Those that are kept."""
        return self.kept_patches or patches

    def chooser(self, config: TowerSizes) -> Callable[[Tensor], Tensor] | None:
        """The same places in all images, or those of most contrast in each."""
        if self.kept_patches is None:
            return None
        if self.patch_rule == "saliency":
            size = (config.patch_size, config.patch_size)
            return partial(salient_patches, patch=size, keep=self.kept_patches)
        side = config.image_size // config.patch_size
        if self.patch_rule == "grid":
            places = grid_patches(side, side, self.kept_patches)
        else:
            places = random_patches(side, side, self.kept_patches, self.patch_seed or 0)
        return partial(same_for_all, places=tuple(places.tolist()))


def same_for_all(pixels: Tensor, places: tuple[int, ...]) -> Tensor:
    """The same places of patches, int64 [kept], whatever the images.

    They are given as numbers: a tensor made with the tower would be of no use if that was on the
    meta device, and one drawn in `forward` would be drawn again in an exported graph, or not at
    all.
    """
    return torch.tensor(places, device=pixels.device)
