"""What a tower costs: multiply-accumulates and parameters.

The MACs of a head and of a neuron follow arXiv 2204.09656: for one image of n tokens, hidden size
d and head dimension h, a head costs 3ndh (queries, keys, values) + 2n²h (logits, weighted sum) +
nhd (output projection), a neuron 2nd (its row of fc1, its column of fc2). A head whose queries and
keys have size a and whose values have size v costs nd(2a + v) + n²(a + v) + nvd. Where tokens get
fewer from layer to layer n is what enters the attention, or the MLP, and each pair of tokens that a
rule compares by their keys costs a MACs per head; where images have different sizes, all are means
over the images.
"""

import functools
import json
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from fractions import Fraction
from functools import cached_property
from operator import mul
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from pruning_mechanism.encoding import layered, tower_of
from pruning_mechanism.families import (
    MODEL_CLASSES,
    TowerKind,
    TowerParts,
    config_class,
    parts_of,
    tower_config,
)
from pruning_mechanism.modeling.token_rule import TokenRule
from pruning_mechanism.modeling.token_rules import asked_rules, dense_size
from pruning_mechanism.protocols import Config, VisionConfig
from pruning_mechanism.tower import Tower


@dataclass(frozen=True)
class LayerTokens:
    """Tokens that enter a layer's attention, their square, and those that enter its MLP.

    `matched` are the pairs of tokens that rules compare in between, by their keys.
    """

    attention: float
    pairs: float
    mlp: float
    matched: float = 0.0


@dataclass(frozen=True)
class Shape:
    """The sizes of a tower that its cost depends on.

    `tokens` enter the first layer. `surrounding_macs` are those of what stands around the encoder
    layers: patch embedding, and head or projection.
    """

    tokens: float
    hidden: int
    head_dim: int
    surrounding_macs: int
    heads: tuple[int, ...]
    neurons: tuple[int, ...]
    query_key_sizes: tuple[int, ...]
    value_sizes: tuple[int, ...]
    layer_tokens: tuple[LayerTokens, ...]

    @classmethod
    def of(cls, config: Config, dense: bool = False, tower: TowerKind = "vision") -> "Shape":
        """The shape of one of `config`'s towers, or, if `dense`, of what it was pruned from.

        A text tower has as many tokens as its context is long, before rules leave any out.

        Raises:
            TowerError: the configuration's family, or its tower of this kind, doesn't fit.
        """
        own, parts = tower_config(config, tower), parts_of(config, tower)
        tokens: float
        before: float
        of_layers: tuple[LayerTokens, ...]
        head_dim = own.hidden_size // own.num_attention_heads
        layers = dense_size(own, "num_hidden_layers") if dense else own.num_hidden_layers
        rules = () if dense else asked_rules(own)

        def widths(name: str, most: int) -> tuple[int, ...]:
            kept = None if dense else getattr(own, name, None)
            return tuple(kept or [most] * layers)

        if tower == "text":
            context = tower_config(config, "text").max_position_embeddings
            tokens, before = context, 0
            of_layers = tuple(_path(context, layers, rules))
        else:
            vision = tower_config(config, "vision")
            side = dense_size(vision, "image_size") if dense else vision.image_size
            counts = _counts(vision, parts, layers, side, rules)
            of_layers = tuple(_mean(counts, layer) for layer in range(layers))
            tokens = of_layers[0].attention if layers else 0
            patch = dense_size(vision, "patch_size") if dense else vision.patch_size
            height, width = _pair(patch)
            patches = tokens - (parts.pooling == "first")  # the class token
            before = patches * vision.num_channels * height * width * own.hidden_size
        return cls(
            tokens=tokens,
            hidden=own.hidden_size,
            head_dim=head_dim,
            surrounding_macs=round(before) + _final_macs(config, own, parts, tokens, rules),
            heads=widths("heads_per_layer", own.num_attention_heads),
            neurons=widths("neurons_per_layer", own.intermediate_size),
            query_key_sizes=widths("query_key_sizes", head_dim),
            value_sizes=widths("value_sizes", head_dim),
            layer_tokens=of_layers,
        )

    def keep(
        self,
        heads: Sequence[int],
        neurons: Sequence[int],
        query_key_sizes: Sequence[int] | None = None,
        value_sizes: Sequence[int] | None = None,
    ) -> "Shape":
        """The same tower with these numbers of heads and neurons per layer and sizes of heads.

        Sizes that are not given stay as they are.
        """
        return replace(
            self,
            heads=tuple(heads),
            neurons=tuple(neurons),
            query_key_sizes=tuple(query_key_sizes or self.query_key_sizes),
            value_sizes=tuple(value_sizes or self.value_sizes),
        )

    def sized_head_macs(self, query_key_size: int, value_size: int, layer: int = 0) -> float:
        """MACs of one of a layer's heads whose queries and keys, and values, have these sizes."""
        tokens, d, a, v = self.layer_tokens[layer], self.hidden, query_key_size, value_size
        own = tokens.attention * d * (2 * a + 2 * v) + tokens.pairs * (a + v)
        return own + tokens.matched * a

    def without_heads_macs(self, layer: int = 0) -> float:
        """MACs of a layer's attention that keeps no head: tokens are matched by the stream."""
        return self.layer_tokens[layer].matched * self.hidden

    def head_macs(self, layer: int = 0) -> float:
        """MACs of one of a layer's heads of the dense head dimension."""
        return self.sized_head_macs(self.head_dim, self.head_dim, layer)

    def neuron_macs(self, layer: int = 0) -> float:
        """MACs of one of a layer's neurons."""
        return 2 * self.layer_tokens[layer].mlp * self.hidden

    @cached_property
    def encoder_macs(self) -> int:
        """MACs of the encoder layers for one image."""
        attention = sum(
            count * self.sized_head_macs(query_key, value, layer)
            if count
            else self.without_heads_macs(layer)
            for layer, (count, query_key, value) in enumerate(
                zip(self.heads, self.query_key_sizes, self.value_sizes, strict=True)
            )
        )
        mlps = sum(count * self.neuron_macs(layer) for layer, count in enumerate(self.neurons))
        return round(attention + mlps)

    def budget(self, mac_constraint: float) -> int:
        """The most MACs that the encoder layers may cost under a MAC constraint.

        The constraint is taken as the decimal number that it prints as: 0.3 of 10 MACs are 3.
        """
        return int(Fraction(repr(float(mac_constraint))) * self.encoder_macs)

    @property
    def tower_macs(self) -> int:
        """MACs of the whole tower for one image or text, what surrounds the layers included."""
        return self.surrounding_macs + self.encoder_macs


def _counts(
    own: VisionConfig,
    parts: TowerParts,
    layers: int,
    side: int | Sequence[int],
    rules: Sequence[TokenRule],
) -> list[tuple[float, list[LayerTokens]]]:
    """For each size that images have: its share, and the tokens of each layer."""
    sides: list[tuple[int | Sequence[int], float]] = [
        given for rule in rules for given in rule.sides()
    ]
    counts = []
    for size, share in sides or [(side, 1.0)]:
        patches = math.prod(
            length // patch
            for length, patch in zip(_pair(size), _pair(own.patch_size), strict=True)
        )
        for rule in rules:
            patches = rule.patches(patches)
        counts.append((share, _path(patches + (parts.pooling == "first"), layers, rules)))
    return counts


def _path(tokens: int, layers: int, rules: Sequence[TokenRule]) -> list[LayerTokens]:
    """The tokens of each layer, of so many that enter the first."""
    path = []
    for layer in range(layers):
        left, compared = tokens, 0
        for rule in rules:
            compared += rule.compared(layer, left)
            left = rule.left(layer, left)
        path.append(LayerTokens(tokens, tokens**2, left, compared))
        tokens = left
    return path


def _mean(counts: list[tuple[float, list[LayerTokens]]], layer: int) -> LayerTokens:
    """Means over images of different sizes; whole numbers where all have one."""
    if len(counts) == 1:
        return counts[0][1][layer]
    shares = [share for share, _ in counts]
    columns = zip(*(astuple(path[layer]) for _, path in counts), strict=True)
    return LayerTokens(*(sum(map(mul, shares, column)) for column in columns))


def _final_macs(
    config: Config, own: Any, parts: TowerParts, tokens: float, rules: Sequence[TokenRule]
) -> int:
    """MACs of the head or projection that the embedding comes out of.

    `own` is the tower's configuration; each family calls the length of an embedding its own name.
    """
    d: int = own.hidden_size
    neurons: int = own.intermediate_size
    outputs: int
    if parts.pooling == "attention":  # one query: its projections, logits and sum, and an MLP
        return round(2 * d**2 + 2 * tokens * d**2 + 2 * tokens * d + 2 * d * neurons)
    if parts.head:
        outputs = own.projection_size
        return d * outputs
    outputs = getattr(config, "projection_dim", own.projection_dim)
    found = (rule.final_macs(d, outputs) for rule in rules)
    return next((macs for macs in found if macs is not None), d * outputs)


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width, whether a configuration gives one number for both or two."""
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates for one input, and the encoder's share of the dense encoder's.

    An encoder that wasn't pruned from anything is its own dense one.
    """

    encoder: int
    tower: int
    fraction: float


def macs(model: PreTrainedModel, tower: TowerKind = "vision") -> Macs:
    """What one image, or one text as long as the context, costs in a tower, dense or pruned.

    What it costs whose layers no rule knows is counted as it runs, biases and norms left out.
    """
    if tower == "vision" and not layered(model):
        return _counted(model.config.model_type, model.config.to_json_string(use_diff=False))
    shape = Shape.of(model.config, tower=tower)
    dense = Shape.of(model.config, dense=True, tower=tower)
    return Macs(shape.encoder_macs, shape.tower_macs, shape.encoder_macs / dense.encoder_macs)


def mac_share(model: PreTrainedModel, full: PreTrainedModel) -> float:
    """A vision encoder's MACs as a share of the dense encoder's that it was pruned from.

    That of one which wasn't pruned from another is of the full tower's, dense.
    """
    own = macs(model)
    if layered(model):
        return own.fraction
    if not layered(full):
        return own.encoder / macs(full).encoder
    return own.encoder / Shape.of(full.config, dense=True).encoder_macs


@functools.cache
def _counted(model_type: str, entries: str) -> Macs:
    """MACs of a tower that is taken as a whole, by torch's counter, without computing anything.

    It takes seconds; `entries` are those of the configuration, as JSON.
    """
    made: Any = MODEL_CLASSES[model_type]
    whole = config_class(made).from_dict(json.loads(entries))
    with torch.device("meta"):
        empty: Any = made(whole).eval()
        config = tower_config(whole, "vision")
        pixels = torch.empty(1, config.num_channels, config.image_size, config.image_size)
        counts = []
        for work in (empty.vision_model, empty.get_image_features):
            counter: Any = FlopCounterMode(display=False)
            with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
                work(pixels)
            counts.append(counter.get_total_flops() // 2)
    encoder, tower = counts
    return Macs(encoder, tower, 1.0)


def parameters(model: PreTrainedModel, tower: TowerKind = "vision") -> int:
    """How many parameters a tower and its projection have."""
    modules = tower_of(model).modules if tower == "vision" else Tower.of(model, tower).modules
    return sum(parameter.numel() for module in modules for parameter in module.parameters())
