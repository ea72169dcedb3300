"""Token ranking: after some layers only the highest-ranked patches go on, the others as one token.

Part of every checkpoint. Ranks are the class token's attention (EViT, arXiv 2202.07800), or those
of a linear predictor in the layer (`compress.rank` solves it).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, layer_norm

from .checks import check_choice, check_per_layer
from .pruned_layers import FamilyModule, vision_tower
from .token_rule import Change, TokenRule, Tokens, TowerSizes, size_bias
from .tokens import keep_ranked

RANKERS = ("attention", "learned")
"""What `ranker` may be; the first if nothing is said."""


@dataclass(frozen=True)
class Ranking(TokenRule):
    """Keep `ranked_per_layer` patches of the highest rank in a layer, all if 0; fuse the others."""

    ranked_per_layer: list[int] | None = None
    ranker: str | None = None

    per_layer: ClassVar = ("ranked_per_layer",)

    def check(self, config: TowerSizes, beside: Sequence[TokenRule]) -> None:
        """Refuse what isn't one number for each layer, and unknown rankers."""
        patches = (config.image_size // config.patch_size) ** 2
        ranked, layers = self.ranked_per_layer, config.num_hidden_layers
        check_per_layer("ranked_per_layer", ranked, layers, patches)
        check_choice("ranker", self.ranker, RANKERS)
        if self.ranker is not None and ranked is None:
            raise ValueError("ranker is of ranked_per_layer; no layer ranks")

    def left(self, layer: int, tokens: int) -> int:
        """The class token, the kept patches and the fused token."""
        keep = self._keep(layer)
        return keep + 2 if keep and keep < tokens - 2 else tokens  # two at least are fused

    def _keep(self, layer: int) -> int:
        """How many patches keep their token in a layer; 0: all."""
        return self.ranked_per_layer[layer] if self.ranked_per_layer else 0

    def fit(self, root: FamilyModule, config: TowerSizes) -> None:
        """Give the layers that learn to rank a predictor, untrained unless they had one."""
        for layer, learns in zip(root.encoder.layers, self._learning(), strict=True):
            if not learns:
                if hasattr(layer, "ranker"):
                    del layer.ranker
            elif not hasattr(layer, "ranker"):
                weight = layer.self_attn.out_proj.weight
                layer.ranker = nn.Linear(config.hidden_size, 1).to(weight.device, weight.dtype)

    def build(self, model: FamilyModule) -> None:
        """Give the layers that learn to rank a predictor."""
        root = vision_tower(model)
        for layer, learns in zip(root.encoder.layers, self._learning(), strict=True):
            if learns:
                layer.ranker = nn.Linear(root.config.hidden_size, 1)

    def _learning(self) -> list[bool]:
        """For each layer whether it has a predictor."""
        return [self.ranker == "learned" and bool(keep) for keep in self.ranked_per_layer or ()]

    def change(self, layer: int, tokens: Tokens) -> Change:
        """Keep the patches of the highest rank and fuse the others."""
        ranks = self._ranks(tokens)
        return partial(keep_ranked, ranks=ranks, keep=self._keep(layer))

    def _ranks(self, tokens: Tokens) -> Tensor:
        """Ranks of all tokens but the class token, [b, n - 1]."""
        hidden = tokens.hidden
        if self.ranker == "learned":
            learned: Tensor = tokens.layer.ranker(layer_norm(hidden[:, 1:], hidden.shape[-1:]))
            return learned[..., 0]
        return attention_ranks(tokens, lambda rows: rows[..., :1, :])[:, 1:].to(hidden.dtype)


def attention_ranks(tokens: Tokens, pooled: Callable[[Tensor], Tensor]) -> Tensor:
    """How much the token that the embedding is read off attends to each, [b, n].

    The logarithm of the heads' mean attention, but for a constant; in a layer without heads, how
    much each is like that token.

    Args:
        tokens: of a layer.
        pooled: takes that token's row out of [b, n, d] or [b, heads, n, size]; one row is left.
    """
    hidden, normed, attended = tokens.hidden, tokens.normed, tokens.attended
    if attended is None or attended.queries is None or attended.keys is None:
        like = hidden if normed is None else normed
        return cosine_similarity(like, pooled(like), dim=-1)
    queries, keys = pooled(attended.queries), attended.keys
    if torch.compiler.is_exporting():  # the shape of a matrix product would lose the batch
        logits = (queries * keys).sum(-1)[:, :, None]
    else:
        logits = queries @ keys.transpose(-1, -2)
    scale: float = tokens.layer.self_attn.scale
    logits = logits * scale
    bias = size_bias(hidden, tokens.sizes)
    if bias is not None:
        logits = logits + bias
    return logits.float().log_softmax(-1).logsumexp(1)[:, 0]  # none of the attention vanishes
