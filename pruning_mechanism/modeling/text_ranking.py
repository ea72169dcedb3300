"""Token ranking of texts: after some layers only the highest-ranked go on, the others as one.

Part of every checkpoint. Ranks are the attention of the end of the text, off which the embedding is
read, as those of images are the class token's (EViT, arXiv 2202.07800). Texts have different
lengths, so how many go on is a share of each text's own tokens, whatever it is padded to.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from .checks import is_number, short
from .ranking import attention_ranks
from .token_rule import Change, TokenRule, Tokens, TowerSizes, known_sizes
from .tokens import ends_of, keep_ranked_of_texts


@dataclass(frozen=True)
class TextRanking(TokenRule):
    """Of a text's tokens between start and end keep a share in each layer, and fuse the others."""

    ranked_share_per_layer: list[float] | None = None

    per_layer: ClassVar = ("ranked_share_per_layer",)
    tower: ClassVar = "text"

    def check(self, config: TowerSizes, beside: Sequence[TokenRule]) -> None:
        """Refuse what isn't one share for each layer."""
        shares, layers = self.ranked_share_per_layer, config.num_hidden_layers
        if not isinstance(shares, (list, tuple)) or len(shares) != layers:
            raise ValueError(
                f"ranked_share_per_layer takes {layers} shares, one a layer, found {short(shares)}"
            )
        for share in shares:
            if not is_number(share) or not 0 < share <= 1:
                raise ValueError(
                    f"ranked_share_per_layer takes shares in (0, 1], found {short(share)}"
                )

    def left(self, layer: int, tokens: int) -> int:
        """Start and end, the kept tokens and the fused one."""
        inner = max(0, tokens - 2)
        return tokens - max(0, inner - self._keep(layer, inner) - 1)  # two at least are fused

    def _keep(self, layer: int, inner: int) -> int:
        """How many of the tokens between start and end stay in a layer, one at least."""
        share = 1.0 if self.ranked_share_per_layer is None else self.ranked_share_per_layer[layer]
        return min(inner, max(1, round(share * inner)))

    def change(self, layer: int, tokens: Tokens) -> Change:
        """Keep the tokens of the highest rank and fuse the others."""
        sizes = known_sizes(tokens.sizes, tokens.hidden)
        _, end = ends_of(sizes)

        def pooled(rows: Tensor) -> Tensor:
            return rows.take_along_dim(end.view(-1, *(1,) * (rows.ndim - 1)), dim=-2)

        ranks, most = attention_ranks(tokens, pooled), sizes.shape[1]
        kept = [self._keep(layer, inner) for inner in range(most)]
        inner = ((sizes > 0).sum(1) - 2).clamp(min=0)
        keep = torch.tensor(kept, device=sizes.device)[inner]
        left = self.left(layer, most)
        return partial(keep_ranked_of_texts, ranks=ranks, keep=keep, left=left)
