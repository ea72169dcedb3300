"""A tower as a residual stream: what enters it, its sublayers, what leaves it.

A tower is a row of sublayers, attention and MLP in turn. Each ends in an output projection whose
input is made of units, heads or neurons, and adds its result to the residual stream. Masking,
scoring and repair all watch or change the input of that projection; they work on `Tower`, which
looks the same for every family and for images and texts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pruning_mechanism.families import (
    TowerError,
    TowerKind,
    TowerParts,
    parts_of,
    tower_config,
)
from pruning_mechanism.modeling.class_token import class_token_after, class_token_suffices
from pruning_mechanism.modeling.pruned_layers import FamilyModule, PrunedAttention, is_watched
from pruning_mechanism.modeling.reduced_tower import ReducedTower
from pruning_mechanism.protocols import Config, EncoderLayer, TowerConfig, VisionConfig
from pruning_mechanism.sublayer import Sublayer

Inputs = Tensor | Mapping[str, Tensor]
"""Pixels [b, 3, height, width], or a tokeniser's dictionary with `input_ids` [b, n]."""


@dataclass(frozen=True)
class Tower:
    """One encoder of a model, dense or pruned; the model itself is not copied.

    `Tower.of(model, "text")` is the usual way to one. Its `inputs` are pixels for vision, and what
    `tokenise` gives for text.
    """

    model: PreTrainedModel
    kind: TowerKind
    parts: TowerParts

    @classmethod
    def of(cls, model: PreTrainedModel, kind: TowerKind = "vision") -> "Tower":
        """The vision or text tower of a model.

        Raises:
            TowerError: the model has no such tower, or it doesn't fit (see `families`).
        """
        parts = parts_of(model.config, kind)
        tower = cls(model, kind, parts)
        if kind == "text" and not hasattr(model, parts.root):
            raise TowerError(
                "this checkpoint has no text tower: name a whole CLIP that it belongs to as well"
            )
        if not hasattr(*tower._place_of_final()):
            raise TowerError(
                f"this {model.config.model_type!r} model has no {parts.projection or parts.head}, "
                "so nothing takes its vision tower into the embedding space"
            )
        return tower

    @property
    def root(self) -> FamilyModule:
        """The module that holds the encoder, without the projection around it."""
        return getattr(self.model, self.parts.root, self.model)

    @property
    def final(self) -> nn.Module:
        """The head or projection that the embedding comes out of."""
        final: nn.Module = getattr(*self._place_of_final())
        return final

    def _place_of_final(self) -> tuple[nn.Module, str]:
        parts = self.parts
        return (self.model, parts.projection) if parts.projection else (self.root, parts.head)

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """All that the embeddings depend on: the root, and the projection if it is outside."""
        return (self.root, self.final) if self.parts.projection else (self.root,)

    @property
    def config(self) -> TowerConfig:
        """The tower's own configuration."""
        return tower_config(self.model.config, self.kind)

    @property
    def dimension(self) -> int:
        """Length of an embedding."""
        size: int = getattr(self.final, "out_features", self.config.hidden_size)
        return size

    @property
    def layers(self) -> Sequence[EncoderLayer]:
        """The encoder layers."""
        layers: Sequence[EncoderLayer] = self.root.encoder.layers
        return layers

    @property
    def sublayers(self) -> list[Sublayer]:
        """The sublayers in the order in which they run."""
        found = []
        for index, layer in enumerate(self.root.encoder.layers):
            attention, mlp = layer.self_attn, layer.mlp
            found.append(
                Sublayer(
                    index,
                    "heads",
                    layer.layer_norm1,
                    attention,
                    attention.out_proj,
                    max(1, getattr(attention, "value_size", attention.head_dim)),
                    self.parts.causal,
                )
            )
            found.append(Sublayer(index, "neurons", layer.layer_norm2, mlp, mlp.fc2, 1))
        return found

    @property
    def reads_class_token(self) -> bool:
        """Whether smaller towers of this one compute their last layer for the class token alone.

        So they do where their embedding is read off it, unless an alignment reads patches as well.
        """
        root = self.root
        reads_patches = isinstance(root, ReducedTower) and any(
            rule.reads_patches() for rule in root.rules
        )
        first = self.kind == "vision" and self.parts.pooling == "first"
        return first and not reads_patches and class_token_suffices(self.layers[-1])

    def embed(self, inputs: Inputs) -> Tensor:
        """What enters the first layer, [b, n, d]."""
        if self.kind == "text":
            hidden: Tensor = self.root.embeddings(input_ids=_of_text(inputs)["input_ids"])
        else:
            hidden = self.root.embeddings(inputs)
        if self.parts.pre_norm:
            hidden = getattr(self.root, self.parts.pre_norm)(hidden)
        return hidden

    def project(
        self, hidden: Tensor, inputs: Inputs | None = None, sizes: Tensor | None = None
    ) -> Tensor:
        """The embeddings [b, e], not normalised, of what leaves the last layer [b, n, d].

        `inputs` are those of `embed`; a tower that reads its embedding off the end of a text needs
        them, the others don't. `sizes` [b, n], of merged tokens, count in an aligned projection.
        """
        if isinstance(self.root, ReducedTower):
            embeddings: Tensor = self.final(self.root.pool(hidden, sizes))
            return embeddings
        if self.parts.pooling == "first":
            hidden = hidden[:, 0]
        elif self.parts.pooling == "last":
            hidden = hidden[:, -1]
        elif self.parts.pooling != "attention":
            rows = torch.arange(len(hidden), device=hidden.device)
            hidden = hidden[rows, self._ends(inputs)]
        embeddings = self.final(getattr(self.root, self.parts.post_norm)(hidden))
        return embeddings

    def embeddings(self, inputs: Inputs) -> Tensor:
        """The embeddings [b, e], not normalised, by the family's own forward pass.

        Where a smaller tower's are read off the class token, its last layer computes nothing else.
        """
        if self.kind == "text":
            tokens = _of_text(inputs)
            given = {"input_ids": tokens["input_ids"]}
            if self.parts.causal and "attention_mask" in tokens:
                given["attention_mask"] = tokens["attention_mask"]
            pooled: Tensor = self.root(**given, return_dict=True).pooler_output
        else:
            pooled = self._read_off(cast("Tensor", inputs))
        return self.final(pooled) if self.parts.projection else pooled

    def _read_off(self, pixels: Tensor) -> Tensor:
        """What is read off images, [b, r]; as a whole where hooks see what the tower gives.

        Towers that lack nothing stay transformers' to the last bit.
        """
        root = self.root
        if not is_watched(root, root.encoder):
            if isinstance(root, ReducedTower):
                return root.read_off(pixels)
            smaller = any(_is_narrower(layer, self.config) for layer in self.layers)
            if smaller and self.reads_class_token:
                hidden = self.embed(pixels)
                for layer in self.layers[:-1]:
                    hidden = layer(hidden, None)
                own = class_token_after(self.layers[-1], hidden)
                alone: Tensor = getattr(root, self.parts.post_norm)(own)
                return alone
        pooled: Tensor = root(pixel_values=pixels, return_dict=True).pooler_output
        return pooled

    def valid(self, inputs: Inputs) -> Tensor | None:
        """Which tokens can reach the embedding, bool[b, n]; None: all of them.

        Under a causal mask those after the end of a text, its padding, can't.
        """
        if not self.parts.causal:
            return None
        ends, tokens = self._ends(inputs), _of_text(inputs)["input_ids"].shape[1]
        return torch.arange(tokens, device=ends.device) <= ends[:, None]

    def pooled(self, inputs: Inputs, tokens: int) -> Tensor | None:
        """Which of its `tokens` each input's embedding is read off, bool[b, n].

        None: a head attends to all of them.
        """
        if self.parts.pooling == "attention":
            return None
        given = inputs if isinstance(inputs, Tensor) else inputs["input_ids"]
        place = {"first": 0, "last": tokens - 1}.get(self.parts.pooling)
        places = (
            self._ends(inputs) if place is None else given.new_full((len(given),), place).long()
        )
        return torch.arange(tokens, device=given.device) == places[:, None]

    def _ends(self, inputs: Inputs | None) -> Tensor:
        """Where each text ends, and its embedding is read off, [b]."""
        tokens, end = _of_text(inputs)["input_ids"].int(), self.root.config.eos_token_id
        if self.parts.pooling == "end or highest" and end == 2:
            return tokens.argmax(1)
        return tokens.eq(end).int().argmax(1)


def _is_narrower(layer: EncoderLayer, config: TowerConfig) -> bool:
    """Whether a layer was pruned, and has less than a dense one of its tower."""
    attention = layer.self_attn
    if not isinstance(attention, PrunedAttention):
        return False
    sizes = attention.q_proj.out_features, attention.v_proj.out_features
    neurons = layer.mlp.fc1.out_features
    return min(sizes) < config.hidden_size or neurons < config.intermediate_size


def _of_text(inputs: Inputs | None) -> Mapping[str, Tensor]:
    if inputs is None or isinstance(inputs, Tensor):
        raise TypeError(f"a text tower takes what `tokenise` gives, found {type(inputs).__name__}")
    return inputs


def vision_config(config: Config) -> VisionConfig:
    """The vision tower's configuration, given a whole CLIP's or its own."""
    return tower_config(config, "vision")


def sublayers(model: PreTrainedModel) -> list[Sublayer]:
    """The sublayers of a model's vision tower, in the order in which they run."""
    return Tower.of(model).sublayers


def embed(model: PreTrainedModel, pixels: Tensor) -> Tensor:
    """What enters the vision tower's first layer, [b, n, d], for pixels [b, 3, height, width]."""
    return Tower.of(model).embed(pixels)


def project(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """The embedding [b, e], not normalised, of what leaves the last vision layer [b, n, d]."""
    return Tower.of(model).project(hidden)
