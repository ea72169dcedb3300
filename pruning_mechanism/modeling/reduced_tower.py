"""A vision tower that works by token rules; part of every checkpoint.

Beside `modeling_pruned_clip`, for towers with a class token. Here is the way through the tower and
the points at which rules act (`token_rule`); what a rule does stands in its own file.

Modifications to transformers' vision towers, each made only where a rule asks for it:
- images are computed at sizes of their own, and only some of their patches are embedded, each with
  its own position;
- between a layer's attention and its MLP tokens get fewer (`reduced_layers`);
- the embedding is read off other things than the class token.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad
from transformers.modeling_outputs import BaseModelOutputWithPooling

from .class_token import class_token_after, class_token_suffices
from .pruned_layers import FamilyModule, mixed, vision_tower
from .reduced_layers import ReducedLayers, as_asked, selected
from .reduced_text import reduce_text_tower
from .token_rule import TowerSizes
from .token_rules import asked_rules


def reduce_towers(model: FamilyModule) -> None:
    """Give the towers of a model the rules that their configurations ask for, in place."""
    reduce_text_tower(model)
    root = vision_tower(model)
    rules = asked_rules(root.config)
    if not rules:
        return
    root.__class__ = mixed(ReducedTower, root.__class__)
    root.rules = rules
    for rule in rules:
        rule.build(model)
        kept = rule.chooser(root.config)
        if kept is not None:
            embeddings = root.embeddings
            embeddings.__class__ = mixed(KeptPatches, embeddings.__class__)
            embeddings.kept = kept


class KeptPatches:
    """Patch embeddings of the kept patches only; over a family's own embeddings.

    `kept` says which patches of images [b, c, height, width] stay (`TokenRule.chooser`).
    """

    config: TowerSizes
    patch_embedding: nn.Conv2d
    class_embedding: nn.Parameter
    position_embedding: nn.Embedding
    kept: Callable[[Tensor], Tensor]

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
        positions: Tensor = self.position_embedding(places)
        return tokens + positions


class ReducedTower(ReducedLayers):
    """A vision tower that works by `rules`; over a family's own."""

    config: Any  # the family's own
    embeddings: nn.Module
    pre_layrnorm: nn.Module
    post_layernorm: nn.Module

    def forward(
        self,
        pixel_values: Tensor,
        interpolate_pos_encoding: bool = False,
        output_hidden_states: bool | int | list[int] | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling | tuple[Any, ...]:
        """As the family's own; hidden states and attentions have fewer tokens from layer to layer.

        Arguments that are None are as the configuration says. There are attentions if the
        implementation gives them, as in dense towers; a layer without heads has none.

        Raises:
            ValueError: images of another size than the tower's, unless their positions are to be
                interpolated; hidden states or attentions of a tower that computes each image at a
                size of its own, whose tokens don't make one tensor.
        """
        states, attentions, as_output = as_asked(
            self.config,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            return_dict=return_dict,
        )
        sized = next((rule for rule in self.rules if rule.sides()), None)
        if sized is None:
            output = self._forward(pixel_values, interpolate_pos_encoding, states, attentions)
        else:
            sizes = [side for side, _ in sized.sides()]
            if states or attentions:
                raise ValueError(
                    f"images of {sizes} pixels have different numbers of tokens: no hidden states "
                    "or attentions of all of them, only embeddings"
                )
            self._check_size(pixel_values, sizes, interpolate_pos_encoding)
            pooled = sized.at_own_sizes(pixel_values, self._pooled)
            output = BaseModelOutputWithPooling(pooler_output=pooled)  # no last hidden state
        return output.to_tuple() if as_output is False else output

    def _check_size(
        self, pixel_values: Tensor, sizes: list[int], interpolate_pos_encoding: bool
    ) -> None:
        side = self.config.image_size
        if pixel_values.shape[-2:] != (side, side) and not interpolate_pos_encoding:
            raise ValueError(
                f"images of {side} x {side} pixels are reduced to {sizes}; found "
                f"{list(pixel_values.shape[-2:])}"
            )

    def read_off(self, pixel_values: Tensor) -> Tensor:
        """The `pooler_output` of `forward` alone [b, r]: its last layer computes no more than that.

        Hooks on this tower don't see it.

        Raises:
            ValueError: as in `forward`.
        """
        sized = next((rule for rule in self.rules if rule.sides()), None)
        if sized is None:
            return self._pooled(pixel_values, False)
        self._check_size(pixel_values, [side for side, _ in sized.sides()], False)
        return sized.at_own_sizes(pixel_values, self._pooled)

    def _pooled(self, pixel_values: Tensor, interpolate_pos_encoding: bool = True) -> Tensor:
        """What is read off images of one size, of any size."""
        hidden: Tensor = self.pre_layrnorm(self.embeddings(pixel_values, interpolate_pos_encoding))
        sizes: Tensor | None = None
        *before, last = range(len(self.encoder.layers))
        for index in before:
            hidden, sizes = self.through(index, hidden, sizes)
        layer, tokens = self.encoder.layers[last], hidden.shape[1]
        if any(
            rule.reads_patches() or rule.left(last, tokens) != tokens for rule in self.rules
        ) or not class_token_suffices(layer):
            return self.pool(*self.through(last, hidden, sizes))
        own = class_token_after(layer, hidden, self.bias(hidden, sizes))
        return self.pool(own[:, None])

    def _forward(
        self,
        pixel_values: Tensor,
        interpolate_pos_encoding: bool = False,
        output_hidden_states: bool | int | list[int] | None = None,
        output_attentions: bool | None = None,
    ) -> BaseModelOutputWithPooling:
        weights: list[Tensor] | None = [] if output_attentions else None
        states, sizes = self._states(pixel_values, interpolate_pos_encoding, weights)
        asked = selected(states, output_hidden_states) if output_hidden_states else None
        return BaseModelOutputWithPooling(
            last_hidden_state=states[-1],
            pooler_output=self.pool(states[-1], sizes),
            hidden_states=asked,  # type: ignore[arg-type]  # transformers' have gaps, too
            attentions=None if weights is None else tuple(weights),
        )

    def _states(
        self,
        pixel_values: Tensor,
        interpolate_pos_encoding: bool = False,
        weights: list[Tensor] | None = None,
    ) -> tuple[list[Tensor], Tensor | None]:
        """The stream before the first layer and after each, and the last tokens' sizes."""
        hidden: Tensor = self.pre_layrnorm(self.embeddings(pixel_values, interpolate_pos_encoding))
        sizes: Tensor | None = None
        states = [hidden]
        for index in range(len(self.encoder.layers)):
            hidden, sizes = self.through(index, hidden, sizes, weights)
            states.append(hidden)
        return states, sizes

    def pool(self, hidden: Tensor, sizes: Tensor | None = None) -> Tensor:
        """What the projection gets of the last stream [b, n, d]: the class token's row, normed.

        Or what a rule reads off it.
        """
        for rule in self.rules:
            pooled = rule.pool(self, hidden, sizes)
            if pooled is not None:
                return pooled
        normed: Tensor = self.post_layernorm(hidden[:, 0])
        return normed
