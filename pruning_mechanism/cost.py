"""What a tower costs: multiply-accumulates and parameters.

The MACs of a head and of a neuron follow arXiv 2204.09656: for one image of n tokens, hidden size
d and head dimension h, a head costs 3ndh (queries, keys, values) + 2n²h (logits, weighted sum) +
nhd (output projection), a neuron 2nd (its row of fc1, its column of fc2).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

from torch import nn

from pruning_mechanism.tower import vision_config


@dataclass(frozen=True)
class Shape:
    """The sizes of a vision tower that its cost depends on."""

    tokens: int
    hidden: int
    head_dim: int
    patch_inputs: int
    embedding: int
    heads: tuple[int, ...]
    neurons: tuple[int, ...]

    @classmethod
    def of(cls, config, dense: bool = False) -> "Shape":
        """The shape of `config`'s vision tower, or, if `dense`, of what it was pruned from."""
        vision = vision_config(config)
        layers = vision.num_hidden_layers
        heads = None if dense else getattr(vision, "heads_per_layer", None)
        neurons = None if dense else getattr(vision, "neurons_per_layer", None)
        return cls(
            tokens=(vision.image_size // vision.patch_size) ** 2 + 1,
            hidden=vision.hidden_size,
            head_dim=vision.hidden_size // vision.num_attention_heads,
            patch_inputs=vision.num_channels * vision.patch_size**2,
            embedding=getattr(config, "projection_dim", vision.projection_dim),
            heads=tuple(heads or [vision.num_attention_heads] * layers),
            neurons=tuple(neurons or [vision.intermediate_size] * layers),
        )

    def keep(self, heads: Sequence[int], neurons: Sequence[int]) -> "Shape":
        """The same tower with these numbers of heads and neurons a layer."""
        return replace(self, heads=tuple(heads), neurons=tuple(neurons))

    @cached_property
    def head_macs(self) -> int:
        """MACs of one head."""
        n, d, h = self.tokens, self.hidden, self.head_dim
        return 3 * n * d * h + 2 * n**2 * h + n * h * d

    @cached_property
    def neuron_macs(self) -> int:
        """MACs of one neuron."""
        return 2 * self.tokens * self.hidden

    @cached_property
    def encoder_macs(self) -> int:
        """MACs of the encoder layers for one image."""
        return self.head_macs * sum(self.heads) + self.neuron_macs * sum(self.neurons)

    def budget(self, mac_constraint: float) -> int:
        """The most MACs that the encoder layers may cost under a MAC constraint.

        The constraint is taken as the decimal number that it prints as: 0.3 of 10 MACs are 3.
        """
        return int(Fraction(repr(float(mac_constraint))) * self.encoder_macs)

    @cached_property
    def tower_macs(self) -> int:
        """MACs of the whole tower for one image, patch embedding and projection included."""
        patches = (self.tokens - 1) * self.patch_inputs * self.hidden
        return patches + self.encoder_macs + self.hidden * self.embedding


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates for one image, and the encoder's share of the dense encoder's."""

    encoder: int
    tower: int
    fraction: float


def macs(model: nn.Module) -> Macs:
    """What one image costs in `model`'s vision tower, dense or pruned."""
    shape, dense = Shape.of(model.config), Shape.of(model.config, dense=True)
    return Macs(shape.encoder_macs, shape.tower_macs, shape.encoder_macs / dense.encoder_macs)


def parameters(model: nn.Module) -> int:
    """How many parameters the vision tower and its projection have."""
    parts = (model.vision_model, model.visual_projection)
    return sum(parameter.numel() for part in parts for parameter in part.parameters())
