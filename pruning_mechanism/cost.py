"""What a tower costs: multiply-accumulates and parameters.

The MACs of a head and of a neuron follow arXiv 2204.09656: for one image of n tokens, hidden size
d and head dimension h, a head costs 3ndh (queries, keys, values) + 2n²h (logits, weighted sum) +
nhd (output projection), a neuron 2nd (its row of fc1, its column of fc2). A head whose queries and
keys have size a and whose values have size v costs nd(2a + v) + n²(a + v) + nvd.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

from torch import nn

from pruning_mechanism.families import TowerKind, TowerParts, parts_of, tower_config
from pruning_mechanism.tower import Tower


@dataclass(frozen=True)
class Shape:
    """The sizes of a tower that its cost depends on.

    `surrounding_macs` are those of what stands around the encoder layers: patch embedding, and head
    or projection.
    """

    tokens: int
    hidden: int
    head_dim: int
    surrounding_macs: int
    heads: tuple[int, ...]
    neurons: tuple[int, ...]
    query_key_sizes: tuple[int, ...]
    value_sizes: tuple[int, ...]

    @classmethod
    def of(cls, config, dense: bool = False, tower: TowerKind = "vision") -> "Shape":
        """The shape of one of `config`'s towers, or, if `dense`, of what it was pruned from.

        A text tower has as many tokens as its context is long.

        Raises:
            TowerError: the configuration's family, or its tower of this kind, doesn't fit.
        """
        own, parts = tower_config(config, tower), parts_of(config, tower)
        head_dim = own.hidden_size // own.num_attention_heads

        def widths(name: str, most: int) -> tuple[int, ...]:
            kept = None if dense else getattr(own, name, None)
            return tuple(kept or [most] * own.num_hidden_layers)

        if tower == "text":
            tokens, before = own.max_position_embeddings, 0
        else:
            (image_height, image_width), (height, width) = map(
                _pair, (own.image_size, own.patch_size)
            )
            patches = (image_height // height) * (image_width // width)
            tokens = patches + (parts.pooling == "first")  # the class token
            before = patches * own.num_channels * height * width * own.hidden_size
        return cls(
            tokens=tokens,
            hidden=own.hidden_size,
            head_dim=head_dim,
            surrounding_macs=before + _final_macs(config, own, parts, tokens),
            heads=widths("heads_per_layer", own.num_attention_heads),
            neurons=widths("neurons_per_layer", own.intermediate_size),
            query_key_sizes=widths("query_key_sizes", head_dim),
            value_sizes=widths("value_sizes", head_dim),
        )

    def keep(
        self,
        heads: Sequence[int],
        neurons: Sequence[int],
        query_key_sizes: Sequence[int] | None = None,
        value_sizes: Sequence[int] | None = None,
    ) -> "Shape":
        """The same tower with these numbers of heads and neurons a layer, and sizes of its heads.

        Sizes that aren't given stay.
        """
        return replace(
            self,
            heads=tuple(heads),
            neurons=tuple(neurons),
            query_key_sizes=tuple(query_key_sizes or self.query_key_sizes),
            value_sizes=tuple(value_sizes or self.value_sizes),
        )

    def sized_head_macs(self, query_key_size: int, value_size: int) -> int:
        """MACs of a head whose queries and keys, and whose values, have these sizes."""
        n, d, a, v = self.tokens, self.hidden, query_key_size, value_size
        return n * d * (2 * a + v) + n**2 * (a + v) + n * v * d

    @cached_property
    def head_macs(self) -> int:
        """MACs of one head of the dense head dimension."""
        return self.sized_head_macs(self.head_dim, self.head_dim)

    @cached_property
    def neuron_macs(self) -> int:
        """MACs of one neuron."""
        return 2 * self.tokens * self.hidden

    @cached_property
    def encoder_macs(self) -> int:
        """MACs of the encoder layers for one image."""
        attention = sum(
            count * self.sized_head_macs(query_key, value)
            for count, query_key, value in zip(
                self.heads, self.query_key_sizes, self.value_sizes, strict=True
            )
        )
        return attention + self.neuron_macs * sum(self.neurons)

    def budget(self, mac_constraint: float) -> int:
        """The most MACs that the encoder layers may cost under a MAC constraint.

        The constraint is taken as the decimal number that it prints as: 0.3 of 10 MACs are 3.
        """
        return int(Fraction(repr(float(mac_constraint))) * self.encoder_macs)

    @property
    def tower_macs(self) -> int:
        """MACs of the whole tower for one image or text, what surrounds the layers included."""
        return self.surrounding_macs + self.encoder_macs


def _final_macs(config, own, parts: TowerParts, tokens: int) -> int:
    """MACs of the head or projection that the embedding comes out of."""
    d = own.hidden_size
    if parts.pooling == "attention":  # one query: its projections, logits and sum, and an MLP
        return 2 * d**2 + 2 * tokens * d**2 + 2 * tokens * d + 2 * d * own.intermediate_size
    if parts.head:
        return d * own.projection_size
    return d * getattr(config, "projection_dim", own.projection_dim)


def _pair(size) -> tuple[int, int]:
    """Height and width, where a configuration gives one number for both or each its own."""
    return (size, size) if isinstance(size, int) else tuple(size)


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates for one input, and the encoder's share of the dense encoder's."""

    encoder: int
    tower: int
    fraction: float


def macs(model: nn.Module, tower: TowerKind = "vision") -> Macs:
    """What one image, or one text as long as the context, costs in a tower, dense or pruned."""
    shape = Shape.of(model.config, tower=tower)
    dense = Shape.of(model.config, dense=True, tower=tower)
    return Macs(shape.encoder_macs, shape.tower_macs, shape.encoder_macs / dense.encoder_macs)


def parameters(model: nn.Module, tower: TowerKind = "vision") -> int:
    """How many parameters a tower and its projection have."""
    modules = Tower.of(model, tower).modules
    return sum(parameter.numel() for module in modules for parameter in module.parameters())
