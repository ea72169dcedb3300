"""An aligned projection: the embedding is read off the class token and the mean of the patches.

Part of every checkpoint. `compress.align` solves it in closed form, so that a smaller tower's
embeddings are as close as they can be to those of the full tower.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .checks import check_range
from .pruned_layers import FamilyModule, vision_tower
from .token_rule import TokenRule, TowerSizes


class AlignedProjection(nn.Module):
    """[class token, mean of patches] [b, 2d] → embeddings [b, e].

    Linear in these and in random features of them, GELU(R · + r), where there are some (random
    features: Rahimi and Recht 2008).
    """

    def __init__(self, inputs: int, features: int, outputs: int) -> None:
        super().__init__()
        self.random = nn.Linear(inputs, features) if features else None
        self.linear = nn.Linear(inputs + features, outputs)
        self.out_features = outputs

    def features(self, pooled: Tensor) -> Tensor:
        """What the embedding is linear in, [b, 2d + features], for [b, 2d]."""
        if self.random is None:
            return pooled
        return torch.cat([pooled, nn.functional.gelu(self.random(pooled))], dim=-1)

    def forward(self, pooled: Tensor) -> Tensor:
        """Embeddings [b, e], not normalised."""
        embeddings: Tensor = self.linear(self.features(pooled))
        return embeddings


@dataclass(frozen=True)
class Alignment(TokenRule):
    """Project by an `AlignedProjection` with `aligned_features` random features.

    No setting of `Reduction` asks for it: `align` takes the projection itself.
    """

    aligned_features: int | None = None

    @classmethod
    def settings(cls) -> tuple[str, ...]:
        """None: `align` takes the projection itself."""
        return ()

    def check(self, config: TowerSizes, beside: Sequence[TokenRule]) -> None:
        """Refuse a number of random features below 0."""
        check_range("aligned_features", self.aligned_features, 0)

    def final_macs(self, hidden: int, outputs: int) -> int | None:
        """Those of the random features and of what is linear in them."""
        inputs, features = 2 * hidden, self.aligned_features or 0
        return inputs * features + (inputs + features) * outputs

    def build(self, model: FamilyModule) -> None:
        """Put an `AlignedProjection` in place of the linear one."""
        config, own = vision_tower(model).config, model.visual_projection
        model.visual_projection = AlignedProjection(
            2 * config.hidden_size, self.aligned_features or 0, own.out_features
        )

    def pool(self, root: FamilyModule, hidden: Tensor, sizes: Tensor | None) -> Tensor | None:
        """The class token and the mean of the patches by their sizes, both normed: [b, 2d]."""
        normed = root.post_layernorm(hidden)
        patches = normed[:, 1:]
        if sizes is None:
            mean = patches.mean(1)
        else:
            shares = sizes[:, 1:] / sizes[:, 1:].sum(1, keepdim=True)
            mean = (patches * shares[..., None].to(patches.dtype)).sum(1)
        return torch.cat([normed[:, 0], mean], dim=1)
