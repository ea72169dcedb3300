"""A vision tower with fewer tokens than patches, fewer layers, an aligned projection.

Part of every checkpoint, beside `modeling_pruned_clip`. For towers with a class token (CLIP,
MetaCLIP 2, AltCLIP, Chinese-CLIP), whose parts have the same names.

Modifications to transformers' vision towers, each made only where the configuration asks for it:
- only the patches that are kept are embedded, each with its own position (`patch_rule`);
- between a layer's attention and its MLP tokens are ranked or merged; from then on each stands for
  as many patches as its size says, and attention counts it so often (ToMe's proportional attention,
  arXiv 2210.09461, equation 1);
- images are reduced to one of several sizes, each by what it would lose (`resolutions`); a graph
  that is exported or traced computes every image at all of them and takes the one that is its own;
- the embedding is read off [class token, mean of the patches] by an `AlignedProjection`.
"""

from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, layer_norm, linear, pad
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
        root.embeddings.places = root.embeddings.fixed_places()
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
    """Patch embeddings of the kept patches only; over a family's own embeddings.

    `places` are those that stay in all images, None where each image has its own. They are numbers,
    drawn when the tower is made: a tensor from then would be of no use if that was on the meta
    device, and one drawn in `forward` would be drawn again, or not at all, in an exported graph.
    """

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
        kept = self.kept(pixel_values)
        rows, columns = kept // patches.shape[2], kept % patches.shape[2]
        if kept.ndim == 1:
            patches = patches[:, rows, columns]
        else:
            images = torch.arange(pixels.shape[0], device=pixels.device)[:, None]
            patches = patches[images, rows, columns]
        embedded = linear(patches.flatten(2), weight.flatten(1), self.patch_embedding.bias)
        first = self.class_embedding.expand(pixels.shape[0], 1, -1)
        tokens = torch.cat([first, embedded], dim=1)
        places = pad(kept + 1, (1, 0))
        return tokens + self.position_embedding(places)

    def kept(self, pixels: Tensor) -> Tensor:
        """Which patches of images [b, c, height, width] stay: int64 [kept], or [b, kept]."""
        if self.places is not None:
            return torch.tensor(self.places, device=pixels.device)
        size = self.patch_embedding.kernel_size
        return salient_patches(pixels, size, self.config.kept_patches)

    def fixed_places(self) -> tuple[int, ...] | None:
        """The patches that stay in all images, as the configuration asks for them."""
        config, side = self.config, self.config.image_size // self.config.patch_size
        if config.patch_rule == "saliency":
            return None
        if config.patch_rule == "grid":
            return tuple(grid_patches(side, side, config.kept_patches).tolist())
        seed = config.patch_seed or 0
        return tuple(random_patches(side, side, config.kept_patches, seed).tolist())


class ReducedTower:
    """A vision tower as its configuration reduces it; over a family's own."""

    keep_ranked, merge = staticmethod(keep_ranked), staticmethod(merge)

    def forward(
        self,
        pixel_values: Tensor,
        interpolate_pos_encoding: bool = False,
        output_hidden_states: bool | int | list[int] | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPooling | tuple:
        """As the family's own; hidden states and attentions have fewer tokens from layer to layer.

        What isn't said is as the configuration has it. Attentions are there if the implementation
        gives them, as those of dense towers; a layer without heads has none.

        Raises:
            ValueError: images of another size than the tower's, unless their positions are to be
                interpolated; hidden states or attentions of a tower that reduces each image to a
                size of its own, whose tokens don't make one tensor.
        """
        asked = {
            "output_hidden_states": output_hidden_states,
            "output_attentions": output_attentions,
            "return_dict": return_dict,
        }
        states, attentions, as_output = (
            getattr(self.config, name, None) if value is None else value
            for name, value in asked.items()
        )
        if self.config.resolutions:
            if states or attentions:
                raise ValueError(
                    f"images of {self.config.resolutions} pixels have different numbers of tokens: "
                    "no hidden states or attentions of all of them, only embeddings"
                )
            output = self._at_own_sizes(pixel_values, interpolate_pos_encoding)
        else:
            output = self._forward(pixel_values, interpolate_pos_encoding, states, attentions)
        return output.to_tuple() if as_output is False else output

    def _at_own_sizes(
        self, pixel_values: Tensor, interpolate_pos_encoding: bool
    ) -> BaseModelOutputWithPooling:
        """What is read off each image at the size that it takes; no last hidden state."""
        side = self.config.image_size
        if pixel_values.shape[-2:] != (side, side) and not interpolate_pos_encoding:
            raise ValueError(
                f"images of {side} x {side} pixels are reduced to {self.config.resolutions}; found "
                f"{list(pixel_values.shape[-2:])}"
            )
        choice = self.chosen_resolutions(pixel_values)
        if torch.compiler.is_exporting() or torch.jit.is_tracing():
            return BaseModelOutputWithPooling(
                pooler_output=self._of_all_sizes(pixel_values, choice)
            )
        pooled = None
        for place, size in enumerate(self.config.resolutions):
            rows = (choice == place).nonzero().flatten()
            if len(rows):
                found = self._forward(resized(pixel_values[rows], size), True).pooler_output
                if pooled is None:
                    pooled = found.new_empty(len(pixel_values), found.shape[1])
                pooled = pooled.index_copy(0, rows, found)
        return BaseModelOutputWithPooling(pooler_output=pooled)

    def _of_all_sizes(self, pixel_values: Tensor, choice: Tensor) -> Tensor:
        """The same in a graph, which can't know how many images take a size: all, then selected."""
        first, *others = (
            self._forward(resized(pixel_values, size), True).pooler_output
            for size in self.config.resolutions
        )
        for place, found in enumerate(others, start=1):
            first = torch.where((choice == place)[:, None], found, first)
        return first

    def chosen_resolutions(self, pixel_values: Tensor) -> Tensor:
        """The place of each image's size among the resolutions, int64 [b]."""
        *smaller, last = range(len(self.config.resolutions))
        choice = torch.full(pixel_values.shape[:1], last, device=pixel_values.device)
        for place in reversed(smaller):
            lost = complexity(pixel_values.float(), self.config.resolutions[place])
            choice = torch.where(lost <= self.config.resolution_bounds[place], place, choice)
        return choice

    def _forward(
        self,
        pixel_values: Tensor,
        interpolate_pos_encoding: bool = False,
        output_hidden_states: bool | int | list[int] | None = None,
        output_attentions: bool | None = None,
    ) -> BaseModelOutputWithPooling:
        hidden = self.pre_layrnorm(self.embeddings(pixel_values, interpolate_pos_encoding))
        weights = [] if output_attentions else None
        states, sizes = [hidden], None
        for index in range(len(self.encoder.layers)):
            hidden, sizes = self.through(index, hidden, sizes, weights)
            states.append(hidden)
        return BaseModelOutputWithPooling(
            last_hidden_state=hidden,
            pooler_output=self.pool(hidden, sizes),
            hidden_states=_selected(states, output_hidden_states) if output_hidden_states else None,
            attentions=tuple(weights) if output_attentions else None,
        )

    def through(
        self,
        index: int,
        hidden: Tensor,
        sizes: Tensor | None,
        weights: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """The stream [b, n, d] and its tokens' sizes [b, n] after a layer; sizes None: all 1.

        The layer's attention [b, heads, n, n] is added to `weights`, if the implementation gives
        it.
        """
        layer, now = self.encoder.layers[index], Reducing.of(self.config, index, hidden.shape[1])
        if now.left == hidden.shape[1] and weights is None:
            return layer(hidden, _bias(hidden, sizes)), sizes
        hidden, sizes = self.attend_and_reduce(index, hidden, sizes, weights)
        return self.feed(index, hidden), sizes

    def attend_and_reduce(
        self,
        index: int,
        hidden: Tensor,
        sizes: Tensor | None,
        weights: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """The stream and its tokens' sizes after a layer's attention, tokens ranked and merged."""
        layer, now = self.encoder.layers[index], Reducing.of(self.config, index, hidden.shape[1])
        asked = {} if weights is None else {"output_attentions": True}
        hidden, normed, attended = self.attend(index, hidden, sizes, **asked)
        if weights is not None and attended.weights is not None:
            weights.append(attended.weights)
        if now.keep:
            ranks = self._ranks(layer, hidden, normed, attended, sizes)
            hidden, sizes = self.keep_ranked(hidden, _known(sizes, hidden), ranks, now.keep)
        if now.merged:
            metric = hidden if now.keep else _metric(attended, normed)
            hidden, sizes = self.merge(hidden, _known(sizes, hidden), match(metric, now.merged))
        return hidden, sizes

    def attend(
        self, index: int, hidden: Tensor, sizes: Tensor | None, **kwargs
    ) -> tuple[Tensor, Tensor, Attended]:
        """The stream after a layer's attention, what that was given, and what it gave."""
        layer = self.encoder.layers[index]
        normed = layer.layer_norm1(hidden)
        attended = layer.self_attn.attend(normed, _bias(hidden, sizes), **kwargs)
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
        queries, keys = attended.queries[:, :, :1], attended.keys
        if torch.compiler.is_exporting():  # the shape of a matrix product would lose the batch
            logits = (queries * keys).sum(-1)[:, :, None]
        else:
            logits = queries @ keys.transpose(-1, -2)
        logits = logits * layer.self_attn.scale
        if sizes is not None:
            logits = logits + _bias(hidden, sizes)
        # the logarithm of the heads' mean attention, but for a constant; none of it vanishes
        return logits.float().log_softmax(-1).logsumexp(1)[:, 0, 1:].to(hidden.dtype)


def _selected(states: list[Tensor], asked: bool | int | list[int]) -> tuple[Tensor | None, ...]:
    """All hidden states, or those that transformers' numbers ask for, the others None."""
    if asked is True:
        return tuple(states)
    numbers = [asked] if isinstance(asked, int) else asked
    wanted = {number % len(states) for number in numbers if -len(states) <= number < len(states)}
    return tuple(state if place in wanted else None for place, state in enumerate(states))


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
