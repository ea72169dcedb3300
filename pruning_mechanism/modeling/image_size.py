"""Smaller images: the positions of patches are interpolated once; part of every checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from .checks import check_cuttable, check_range
from .pruned_layers import FamilyModule
from .token_rule import TokenRule, TowerSizes


@dataclass(frozen=True)
class SmallerImages(TokenRule):
    """Take images of another size, `image_size`; `dense_image_size` is that of the tower before."""

    dense_image_size: int | None = None

    @classmethod
    def settings(cls) -> tuple[str, ...]:
        """The side of the images in pixels."""
        return ("image_size",)

    @classmethod
    def entries(cls, config: TowerSizes, **asked: Any) -> dict[str, Any]:
        """The new side, and the one at first."""
        dense = getattr(config, "dense_image_size", None) or config.image_size
        return asked | {"dense_image_size": dense}

    def check(self, config: TowerSizes, beside: Sequence[TokenRule]) -> None:
        """Refuse images that patches don't fit into."""
        check_cuttable(config.image_size, config.patch_size)
        check_range("dense_image_size", self.dense_image_size, config.patch_size)

    def dense_sizes(self) -> dict[str, int]:
        """The side of the images at first."""
        return {} if self.dense_image_size is None else {"image_size": self.dense_image_size}

    def fit(self, root: FamilyModule, config: TowerSizes) -> None:
        """Interpolate the positions of the patches to the new grid."""
        side, embeddings = config.image_size // config.patch_size, root.embeddings
        table = embeddings.position_embedding.weight
        if len(table) == 1 + side**2:
            return
        positions = torch.cat([table[:1], interpolated(table[1:], side)])
        embeddings.position_embedding = nn.Embedding.from_pretrained(positions, freeze=False)
        embeddings.position_embedding.weight.requires_grad_(table.requires_grad)
        embeddings.position_ids = torch.arange(len(positions), device=table.device)[None]


def interpolated(positions: Tensor, side: int) -> Tensor:
    """Positions [s * s, d] of a square grid at another one, [side * side, d]: bicubic.

    As transformers interpolates them when it is given images of another size.
    """
    old = round(len(positions) ** 0.5)
    grid = positions.detach().float().T.reshape(1, -1, old, old)
    grid = interpolate(grid, (side, side), mode="bicubic", align_corners=False)
    return grid[0].flatten(1).T.to(positions.dtype)
