"""A vision tower with fewer tokens than patches, fewer layers, an aligned projection.

Part of every checkpoint, beside `modeling_pruned_clip`. For towers with a class token (CLIP,
MetaCLIP 2, AltCLIP, Chinese-CLIP), whose parts have the same names.

Modifications to transformers' vision towers, each made only where the configuration asks for it:
- only the patches that are kept are embedded, each with its own position (`patch_rule`);
- between a layer's attention and its MLP tokens are ranked or merged; from then on each stands for
  as many patches as its size says, and attention counts it so often (ToMe's proportional attention,
  arXiv 2210.09461, equation 1);
- images are reduced to one of several sizes, each by what it would lose (`resolutions`);
- the embedding is read off [class token, mean of the patches] by an `AlignedProjection`.
"""

from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, layer_norm, linear
from transformers.modeling_outputs import BaseModelOutputWithPooling

from .pruned_layers import Attended, mixed
from .tokens import (
    complexity,
    grid_patches,
    keep_ranked,
    match,
    merge,
    mergeable,
    random_patches,
    resized,
    salient_patches,
)


@dataclass(init=False, repr=False, eq=False)
class FewerTokens:
    """What a vision tower does besides keeping narrower layers; None: nothing of the kind.

    A layer of `merged_per_layer` merges so many tokens, or as many as it can; one of
    `ranked_per_layer` keeps so many patches, or all if 0, by the class token's `attention` or a
    `learned` rank. An image takes the first of the `resolutions`, ascending, at which it loses
    no more than the bound of that place; `resolution_shares` are the shares of images expected at
    each. `dense_layers` and `dense_image_size` are those of the tower as it was.
    `aligned_features` is the number of random features of the aligned projection.
    """

    kept_patches: int | None = None
    patch_rule: str | None = None
    patch_seed: int | None = None
    merged_per_layer: list[int] | None = None
    ranked_per_layer: list[int] | None = None
    ranker: str | None = None
    resolutions: list[int] | None = None
    resolution_bounds: list[float] | None = None
    resolution_shares: list[float] | None = None
    dense_layers: int | None = None
    dense_image_size: int | None = None
    aligned_features: int | None = None


class Reducing(NamedTuple):
    """What happens to the tokens between a layer's attention and its MLP.

    `keep` patches stay by rank, or all if 0; then `merged` merge; `left` tokens are left.
    """

    keep: int
    merged: int
    left: int

    @classmethod
    def of(cls, config, layer: int, tokens: int) -> "Reducing":
        """What a configuration asks for in a layer that so many tokens enter."""
        keep = getattr(config, "ranked_per_layer", None)
        keep = keep[layer] if keep and keep[layer] < tokens - 2 else 0  # two at least are fused
        tokens = keep + 2 if keep else tokens
        merged = getattr(config, "merged_per_layer", None)
        merged = min(merged[layer], mergeable(tokens)) if merged else 0
        return cls(keep, merged, tokens - merged)


def is_reduced(config) -> bool:
    """Whether a vision tower's configuration asks for anything of `FewerTokens`."""
    return any(getattr(config, field.name, None) is not None for field in fields(FewerTokens))


def reduce_tower(model: nn.Module) -> None:
    """Give the vision tower of a model what its configuration asks for, in place."""
    root = getattr(model, "vision_model", model)
    config = root.config
    if not is_reduced(config):
        return
    root.__class__ = mixed(ReducedTower, type(root))
    if config.kept_patches is not None:
        root.embeddings.__class__ = mixed(KeptPatches, type(root.embeddings))
    if config.ranker == "learned" and config.ranked_per_layer:
        for layer, keep in zip(root.encoder.layers, config.ranked_per_layer, strict=True):
            if keep:
                layer.ranker = nn.Linear(config.hidden_size, 1)
    if config.aligned_features is not None:
        own = model.visual_projection
        model.visual_projection = AlignedProjection(
            2 * config.hidden_size, config.aligned_features, own.out_features
        )


class AlignedProjection(nn.Module):
    """[class token, mean of patches] [b, 2d] → embeddings [b, e].

    Linear in these and in random features of them, GELU(R · + r), where there are some (random
    features: Rahimi and Recht 2008; solved in closed form by `compress.align`).
    """

    def __init__(self, inputs: int, features: int, outputs: int):
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
        return self.linear(self.features(pooled))


class KeptPatches:
    """Patch embeddings of the kept patches only; over a family's own embeddings."""

    def forward(self, pixel_values: Tensor, interpolate_pos_encoding: bool = False) -> Tensor:
        """The class token and the kept patches, each with its position, [b, 1 + kept, d]."""
        config, weight = self.config, self.patch_embedding.weight
        if pixel_values.shape[-2:] != (config.image_size, config.image_size):
            raise ValueError(
                f"images of {config.image_size} x {config.image_size} pixels only, where patches "
                f"are left out; found {list(pixel_values.shape[-2:])}"
            )
        pixels = pixel_values.to(weight.dtype)
        height, width = weight.shape[-2:]
        patches = pixels.unflatten(3, (-1, width)).unflatten(2, (-1, height))
        patches = patches.permute(0, 2, 4, 1, 3, 5)  # [b, rows, columns, c, height, width]
        kept = self.kept(pixel_values, *patches.shape[1:3])
        rows, columns = kept // patches.shape[2], kept % patches.shape[2]
        if kept.ndim == 1:
            patches = patches[:, rows, columns]
        else:
            images = torch.arange(len(pixels), device=pixels.device)[:, None]
            patches = patches[images, rows, columns]
        embedded = linear(patches.flatten(2), weight.flatten(1), self.patch_embedding.bias)
        tokens = torch.cat([self.class_embedding.expand(len(pixels), 1, -1), embedded], dim=1)
        places = torch.cat([torch.zeros_like(kept[..., :1]), kept + 1], dim=-1)
        return tokens + self.position_embedding(places)

    def kept(self, pixels: Tensor, rows: int, columns: int) -> Tensor:
        """Which patches of images [b, c, height, width] stay: int64 [kept], or [b, kept]."""
        config = self.config
        if config.patch_rule == "saliency":
            return salient_patches(pixels, self.patch_embedding.kernel_size, config.kept_patches)
        if config.patch_rule == "grid":
            kept = grid_patches(rows, columns, config.kept_patches)
        else:
            kept = random_patches(rows, columns, config.kept_patches, config.patch_seed or 0)
        return kept.to(pixels.device)


class ReducedTower:
    """A vision tower as its configuration reduces it; over a family's own."""

    keep_ranked, merge = staticmethod(keep_ranked), staticmethod(merge)

    def forward(
        self,
        pixel_values: Tensor,
        interpolate_pos_encoding: bool = False,
        output_hidden_states: bool | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPooling:
        """As the family's own; hidden states get fewer from layer to layer.

        Where images have different sizes there are no hidden states, only what is read off them.
        """
        if not self.config.resolutions:
            return self._forward(pixel_values, interpolate_pos_encoding, output_hidden_states)
        choice = self.chosen_resolutions(pixel_values)
        pooled = None
        for place, size in enumerate(self.config.resolutions):
            rows = (choice == place).nonzero().flatten()
            if len(rows):
                found = self._forward(resized(pixel_values[rows], size), True).pooler_output
                if pooled is None:
                    pooled = found.new_empty(len(pixel_values), found.shape[1])
                pooled = pooled.index_copy(0, rows, found)
        return BaseModelOutputWithPooling(pooler_output=pooled)

    def chosen_resolutions(self, pixel_values: Tensor) -> Tensor:
        """The place of each image's size among the resolutions, int64 [b]."""
        *smaller, last = range(len(self.config.resolutions))
        choice = torch.full((len(pixel_values),), last, device=pixel_values.device)
        for place in reversed(smaller):
            lost = complexity(pixel_values.float(), self.config.resolutions[place])
            choice[lost <= self.config.resolution_bounds[place]] = place
        return choice

    def _forward(
        self,
        pixel_values: Tensor,
        interpolate_pos_encoding: bool = False,
        output_hidden_states: bool | None = None,
    ) -> BaseModelOutputWithPooling:
        hidden = self.pre_layrnorm(self.embeddings(pixel_values, interpolate_pos_encoding))
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        states, sizes = [hidden], None
        for index in range(len(self.encoder.layers)):
            hidden, sizes = self.through(index, hidden, sizes)
            states.append(hidden)
        return BaseModelOutputWithPooling(
            last_hidden_state=hidden,
            pooler_output=self.pool(hidden, sizes),
            hidden_states=tuple(states) if output_hidden_states else None,
        )

    def through(
        self, index: int, hidden: Tensor, sizes: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """The stream [b, n, d] and its tokens' sizes [b, n] after a layer; sizes None: all 1."""
        layer, now = self.encoder.layers[index], Reducing.of(self.config, index, hidden.shape[1])
        if now.left == hidden.shape[1]:
            return layer(hidden, _bias(hidden, sizes)), sizes
        hidden, sizes = self.attend_and_reduce(index, hidden, sizes)
        return self.feed(index, hidden), sizes

    def attend_and_reduce(
        self, index: int, hidden: Tensor, sizes: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """The stream and its tokens' sizes after a layer's attention, tokens ranked and merged."""
        layer, now = self.encoder.layers[index], Reducing.of(self.config, index, hidden.shape[1])
        hidden, normed, attended = self.attend(index, hidden, sizes)
        if now.keep:
            ranks = self._ranks(layer, hidden, normed, attended, sizes)
            hidden, sizes = self.keep_ranked(hidden, _known(sizes, hidden), ranks, now.keep)
        if now.merged:
            metric = hidden if now.keep else _metric(attended, normed)
            hidden, sizes = self.merge(hidden, _known(sizes, hidden), match(metric, now.merged))
        return hidden, sizes

    def attend(
        self, index: int, hidden: Tensor, sizes: Tensor | None
    ) -> tuple[Tensor, Tensor, Attended]:
        """The stream after a layer's attention, what that was given, and what it gave."""
        layer = self.encoder.layers[index]
        normed = layer.layer_norm1(hidden)
        attended = layer.self_attn.attend(normed, _bias(hidden, sizes))
        return hidden + attended.output, normed, attended

    def feed(self, index: int, hidden: Tensor) -> Tensor:
        """The stream after a layer's MLP, given that before it."""
        layer = self.encoder.layers[index]
        return hidden + layer.mlp(layer.layer_norm2(hidden))

    def pool(self, hidden: Tensor, sizes: Tensor | None = None) -> Tensor:
        """What the projection gets of the last stream [b, n, d]: [b, d], or [b, 2d] if aligned."""
        if self.config.aligned_features is None:
            return self.post_layernorm(hidden[:, 0])
        normed = self.post_layernorm(hidden)
        patches = normed[:, 1:]
        if sizes is None:
            mean = patches.mean(1)
        else:
            shares = sizes[:, 1:] / sizes[:, 1:].sum(1, keepdim=True)
            mean = (patches * shares[..., None].to(patches.dtype)).sum(1)
        return torch.cat([normed[:, 0], mean], dim=1)

    def _ranks(
        self,
        layer: nn.Module,
        hidden: Tensor,
        normed: Tensor,
        attended: Attended,
        sizes: Tensor | None,
    ) -> Tensor:
        """Ranks of all tokens but the class token, [b, n - 1]."""
        if self.config.ranker == "learned":
            return layer.ranker(layer_norm(hidden[:, 1:], hidden.shape[-1:]))[..., 0]
        if attended.keys is None:  # a layer without heads: what is like the class token
            return cosine_similarity(normed[:, 1:], normed[:, :1], dim=-1)
        logits = attended.queries[:, :, :1] @ attended.keys.transpose(-1, -2)
        logits = logits * layer.self_attn.scale
        if sizes is not None:
            logits = logits + _bias(hidden, sizes)
        # the logarithm of the heads' mean attention, but for a constant; none of it vanishes
        return logits.float().log_softmax(-1).logsumexp(1)[:, 0, 1:].to(hidden.dtype)


def _metric(attended: Attended, normed: Tensor) -> Tensor:
    """What tokens are matched by, [b, n, heads * size]: the keys of all heads, side by side.

    ToMe takes the mean of the heads' keys, which depends on the coordinates that each head is
    written in: where heads were turned to be cut, what one of them says the next one cancels.
    """
    return normed if attended.keys is None else attended.keys.transpose(1, 2).flatten(2)


def _known(sizes: Tensor | None, hidden: Tensor) -> Tensor:
    """The tokens' sizes [b, n], float32: half precision doesn't count beyond 256 or 2048."""
    return hidden.new_ones(hidden.shape[:2], dtype=torch.float32) if sizes is None else sizes


def _bias(hidden: Tensor, sizes: Tensor | None) -> Tensor | None:
    """What is added to logits [b, heads, n, n] so that a token counts as often as its size says."""
    return None if sizes is None else sizes.log()[:, None, None].to(hidden.dtype)
