"""An aligned projection: the embedding is read off the class token and the mean of the patches.

Or off the class token alone. Part of every checkpoint. `compress.align` solves it in closed form,
so that a smaller tower's embeddings are as close as they can be to those of the full tower.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .checks import check_choice, check_range
from .pruned_layers import FamilyModule, vision_tower
from .token_rule import TokenRule, TowerSizes

ALIGNED_TOKENS = ("all", "class")
"""What `aligned_tokens` may be; the first if nothing is said."""


class AlignedProjection(nn.Module):
    """[class token, mean of patches] [b, 2d], or the class token [b, d] → embeddings [b, e].

    Linear in these and in random features of them, GELU(R · + r), where there are some (random
    features: Rahimi and Recht 2008).
    """

    def __init__(self, inputs: int, features: int, outputs: int) -> None:
        super().__init__()
        self.random = nn.Linear(inputs, features) if features else None
        self.linear = nn.Linear(inputs + features, outputs)
        self.out_features = outputs

    @property
    def random_features(self) -> int:
        """How many random features there are."""
        return 0 if self.random is None else self.random.out_features

    @property
    def inputs(self) -> int:
        """How many numbers it takes of each image: 2d, or d."""
        return self.linear.in_features - self.random_features

    def features(self, pooled: Tensor) -> Tensor:
        """What the embedding is linear in, [b, r + features], for what is read off [b, r]."""
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

    It reads `aligned_tokens`: all, or the class token alone, for which alone the last layer is
    then computed. No setting of `Reduction` asks for it: `align` takes the projection itself.
    """

    aligned_features: int | None = None
    aligned_tokens: str | None = None

    @classmethod
    def settings(cls) -> tuple[str, ...]:
        """None: `align` takes the projection itself."""
        return ()

    def check(self, config: TowerSizes, beside: Sequence[TokenRule]) -> None:
        """Refuse a number of random features below 0, and unknown tokens to read."""
        check_choice("aligned_tokens", self.aligned_tokens, ALIGNED_TOKENS)
        if self.aligned_features is None:
            raise ValueError("aligned_tokens is of aligned_features; nothing is aligned")
        check_range("aligned_features", self.aligned_features, 0)

    def final_macs(self, hidden: int, outputs: int) -> int | None:
        """Those of the random features and of what is linear in them."""
        inputs, features = self.read(hidden), self.aligned_features or 0
        return inputs * features + (inputs + features) * outputs

    def build(self, model: FamilyModule) -> None:
        """Put an `AlignedProjection` in place of the linear one."""
        config, own = vision_tower(model).config, model.visual_projection
        model.visual_projection = AlignedProjection(
            self.read(config.hidden_size), self.aligned_features or 0, own.out_features
        )

    def read(self, hidden: int) -> int:
        """How many numbers the projection reads off a stream that is `hidden` wide."""
        return 2 * hidden if self.reads_patches() else hidden

    def reads_patches(self) -> bool:
        """Unless it reads the class token alone."""
        return self.aligned_tokens != "class"

    def pool(self, root: FamilyModule, hidden: Tensor, sizes: Tensor | None) -> Tensor | None:
        """The class token and the mean of the patches by their sizes, both normed: [b, 2d].

        Or the class token alone, [b, d].
        """
        if not self.reads_patches():
            return None
        normed = root.post_layernorm(hidden)
        patches = normed[:, 1:]
        if sizes is None:
            mean = patches.mean(1)
        else:
            shares = sizes[:, 1:] / sizes[:, 1:].sum(1, keepdim=True)
            mean = (patches * shares[..., None].to(patches.dtype)).sum(1)
        return torch.cat([normed[:, 0], mean], dim=1)
