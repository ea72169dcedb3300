"""Token merging: in each layer the most similar tokens become one; part of every checkpoint.

ToMe (arXiv 2210.09461): bipartite soft matching by the attention's keys, between attention and MLP.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import Tensor

from .checks import check_per_layer
from .token_rule import Change, TokenRule, Tokens, TowerSizes
from .tokens import match, merge, mergeable

MOST_MERGED = 2**16
"""A layer asked to merge more tokens than it has merges as many as it can; beyond this it is a
mistake."""


@dataclass(frozen=True)
class Merging(TokenRule):
    """Merge `merged_per_layer` tokens in a layer, or as many as can be."""

    merged_per_layer: list[int] | None = None

    per_layer: ClassVar = ("merged_per_layer",)

    def check(self, config: TowerSizes, beside: Sequence[TokenRule]) -> None:
        """Refuse what isn't one number for each layer."""
        layers = config.num_hidden_layers
        check_per_layer("merged_per_layer", self.merged_per_layer, layers, MOST_MERGED)

    def left(self, layer: int, tokens: int) -> int:
        """Those that don't merge into another."""
        merged = self.merged_per_layer[layer] if self.merged_per_layer else 0
        return tokens - min(merged, mergeable(tokens))

    def compared(self, layer: int, tokens: int) -> int:
        """Every second token with every one of the others."""
        if self.left(layer, tokens) == tokens:
            return 0
        return mergeable(tokens) * (tokens // 2)

    def change(self, layer: int, tokens: Tokens) -> Change:
        """Merge the most similar tokens."""
        before = tokens.hidden.shape[1]
        matching = match(_metric(tokens), before - self.left(layer, before))
        return partial(merge, matching=matching)


def _metric(tokens: Tokens) -> Tensor:
    """What tokens are matched by, [b, n, heads * size]: the keys of all heads, side by side.

    ToMe takes the mean of the heads' keys, which depends on the coordinates that each head is
    written in: where heads were turned to be cut, what one of them says the next one cancels.
    A layer without heads matches by what it was given; tokens that are no longer those that
    attended are matched by themselves.
    """
    if tokens.attended is None or tokens.normed is None:
        return tokens.hidden
    keys = tokens.attended.keys
    return tokens.normed if keys is None else keys.transpose(1, 2).flatten(2)
