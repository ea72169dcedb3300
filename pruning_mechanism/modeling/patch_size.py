"""Coarser patches: the same patches of an image at fewer pixels each; part of every checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .checks import check_cuttable, check_range
from .pruned_layers import FamilyModule
from .token_rule import TokenRule, TowerSizes
from .tokens import resized


@dataclass(frozen=True)
class CoarserPatches(TokenRule):
    """Cut smaller images into as many patches, `patch_size` pixels wide each.

    Tokens and positions stay; `dense_patch_size` is the side of a patch at first.
    """

    dense_patch_size: int | None = None

    @classmethod
    def settings(cls) -> tuple[str, ...]:
        """The side of a patch in pixels."""
        return ("patch_size",)

    @classmethod
    def entries(cls, config: TowerSizes, **asked: Any) -> dict[str, Any]:
        """The new sides of patches and images, and the side of a patch at first."""
        side, own = asked["patch_size"], config.patch_size
        check_range("patch_size", side, 1, required=True)
        check_cuttable(config.image_size, own)  # else small patches would lie elsewhere
        if side >= own:
            raise ValueError(f"its patches are {own} pixels wide: take fewer, found {side}")
        if getattr(config, "resolutions", None) is not None:
            raise ValueError("it takes images of several sizes: make its patches coarser before")
        dense = getattr(config, "dense_patch_size", None) or own
        entries = {"image_size": config.image_size // own * side, "dense_patch_size": dense}
        if first := getattr(config, "dense_image_size", None):
            entries["dense_image_size"] = first // own * side
        return asked | entries

    def check(self, config: TowerSizes, beside: Sequence[TokenRule]) -> None:
        """Refuse patches that were finer before than they are."""
        check_cuttable(config.image_size, config.patch_size)
        check_range("dense_patch_size", self.dense_patch_size, config.patch_size + 1)

    def dense_sizes(self) -> dict[str, int]:
        """The side of a patch at first."""
        return {} if self.dense_patch_size is None else {"patch_size": self.dense_patch_size}

    def fit(self, root: FamilyModule, config: TowerSizes) -> None:
        """Resize the weights of the patch embedding."""
        embeddings = root.embeddings
        old = embeddings.patch_embedding
        if old.weight.shape[-1] == config.patch_size:
            return
        made = nn.Conv2d(
            old.in_channels, old.out_channels, config.patch_size, config.patch_size, bias=False
        )
        made.weight = nn.Parameter(
            resized_weight(old.weight.detach(), config.patch_size), old.weight.requires_grad
        )
        embeddings.patch_embedding = made


def resized_weight(weight: Tensor, side: int) -> Tensor:
    """Weights [d, c, p, p] of a patch embedding for patches of another side, [d, c, side, side].

    Those whose products with resized patches are nearest to the old ones with the patches, for
    pixels that are independent: the pseudo-inverse resize of FlexiViT (arXiv 2212.08013, section
    3.4). Patches are reduced as `tokens.resized` does.
    """
    old = weight.shape[-1]
    basis = torch.eye(old**2, dtype=torch.float64, device=weight.device)
    # [old², side²]: what each old pixel adds to each new one
    reduce = resized(basis.reshape(old**2, 1, old, old), side).flatten(1)
    solved: Tensor = weight.double().flatten(2) @ torch.linalg.pinv(reduce).T
    return solved.reshape(*weight.shape[:2], side, side).to(weight.dtype)
