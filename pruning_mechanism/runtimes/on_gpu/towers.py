"""A vision tower whose products are in 8 bits where a GPU has them and gains by them.

All others are in bfloat16: patch embedding and projection, whose rounding does most harm
(`int8.rounding` measures it); narrow products, for which rounding takes longer than it saves; those
whose widths the GPU doesn't take; and, in a smaller tower, the last layer, which computes the class
token alone (`modeling.class_token`) only if its projections are plain. The neurons of an MLP, of
which pruning leaves any number, are filled up with zeros, which helps products in 16 bits too.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import PreTrainedModel

from pruning_mechanism.encoding import layered
from pruning_mechanism.families import TowerError
from pruning_mechanism.modeling.pruned_layers import PrunedAttention
from pruning_mechanism.modeling.reduced_tower import ReducedTower
from pruning_mechanism.protocols import EncoderLayer
from pruning_mechanism.runtimes.on_gpu.products import MULTIPLE, EightBitLinear, EightBits
from pruning_mechanism.tower import Tower

LEAST_WIDTH = 512
"""Inputs and outputs of a product in 8 bits at least. What a product saves for each of its inputs
grows with its outputs, and rounding takes as long as some 600 outputs save, by a GPU's peak rates
and bandwidth; less where torch.compile rounds on the way."""
SCHEME = 1
"""Part of the names of stages in 8 bits: it rises when a tower comes to be rounded otherwise."""


@dataclass(frozen=True)
class EightBitTower:
    """A model whose vision tower computes in 8 bits and, elsewhere, in bfloat16.

    Attributes:
        model: the model.
        rounded: names of its products in 8 bits.
        left: names of the other products of its layers.
    """

    model: PreTrainedModel
    rounded: tuple[str, ...]
    left: tuple[str, ...]

    @property
    def content(self) -> str:
        """What identifies its numbers beside the weights: the SHA-256 of what is rounded."""
        return hashlib.sha256(json.dumps([SCHEME, self.rounded]).encode()).hexdigest()


def in_eight_bits(
    model: PreTrainedModel, half: PreTrainedModel, dtype: EightBits, least: int = LEAST_WIDTH
) -> EightBitTower:
    """Put products in 8 bits into a vision tower, in place.

    Args:
        model: its weights are rounded, in the type that they have.
        half: its copy in bfloat16, whose products are replaced.
        dtype: of the products.
        least: the least width of one that is replaced.

    Raises:
        TowerError: there is none, or the layers of the tower aren't known.
    """
    if not layered(model):
        raise TowerError(
            f"{dtype} is for towers whose layers are known, not for a {model.config.model_type!r} "
            "model's: use dtype bfloat16"
        )
    exact, tower = dict(model.named_modules()), Tower.of(half)
    names = {id(module): name for name, module in half.named_modules()}
    skipped = tower.layers[-1] if _ends_in_class_token(tower) else None
    products, rounded = list[str](), list[str]()
    for layer, maps in _all_maps(tower):
        places = [names[id(linear)] for linear in maps]
        products += places
        weights = _filled_up([_Weight.of(exact[place]) for place in places])
        if layer is not skipped and all(weight.fits(least) for weight in weights):
            for place, weight in zip(places, weights, strict=True):
                half.set_submodule(place, EightBitLinear(weight.weight, weight.bias, dtype))
            rounded += places
    if not rounded:
        raise TowerError(
            f"no product of this tower is wide enough for {dtype} to make it faster ({least} at "
            "least): use dtype bfloat16"
        )
    fill_up(half)
    left = tuple(place for place in products if place not in rounded)
    return EightBitTower(half, tuple(rounded), left)


def fill_up(half: PreTrainedModel) -> None:
    """Fill up the MLPs of a vision tower with neurons of zeros, in place: it computes the same.

    In 16 bits a GPU's fast kernels want rows that start at multiples of 16 bytes, which rows of any
    number of neurons don't.
    """
    if not layered(half):
        return
    for layer in Tower.of(half).layers:
        maps = (layer.mlp.fc1, layer.mlp.fc2)
        if layer.mlp.fc1.out_features % MULTIPLE and all(type(each) is nn.Linear for each in maps):
            weights = _filled_up([_Weight.of(linear) for linear in maps])
            layer.mlp.fc1, layer.mlp.fc2 = (weight.linear() for weight in weights)


@dataclass(frozen=True)
class _Weight:
    """A linear map's weight [out, in] and bias [out]."""

    weight: Tensor
    bias: Tensor | None

    @classmethod
    def of(cls, linear: nn.Module) -> "_Weight":
        if not isinstance(linear, nn.Linear):
            raise TypeError(f"a product is an nn.Linear, found {type(linear).__name__}")
        return cls(linear.weight.detach(), None if linear.bias is None else linear.bias.detach())

    def linear(self) -> nn.Linear:
        """The linear map."""
        out_of, into = self.weight.shape
        made = nn.Linear(into, out_of, bias=self.bias is not None, device="meta")
        made.weight = nn.Parameter(self.weight, requires_grad=False)
        if self.bias is not None:
            made.bias = nn.Parameter(self.bias, requires_grad=False)
        return made

    def fits(self, least: int) -> bool:
        """Whether a GPU computes it in 8 bits, and faster."""
        sizes = self.weight.shape
        return min(sizes) >= least and not any(size % MULTIPLE for size in sizes)


def _all_maps(tower: Tower) -> Iterator[tuple[EncoderLayer, tuple[nn.Module, ...]]]:
    """The linear maps of the layers: each of an attention alone, both of an MLP together."""
    for layer in tower.layers:
        attention, mlp = layer.self_attn, layer.mlp
        for name in ("q_proj", "k_proj", "v_proj", "out_proj") if attention.num_heads else ():
            yield layer, (getattr(attention, name),)
        if mlp.fc1.out_features:
            yield layer, (mlp.fc1, mlp.fc2)


def _filled_up(weights: list[_Weight]) -> list[_Weight]:
    """An MLP with neurons of zeros, which add nothing, up to a multiple; what else is given as is.

    Whatever an activation makes of zero is multiplied by zero.
    """
    if len(weights) == 1:
        return weights
    into, out_of = weights
    extra = -len(into.weight) % MULTIPLE
    bias = None if into.bias is None else pad(into.bias, (0, extra))
    return [
        _Weight(pad(into.weight, (0, 0, 0, extra)), bias),
        _Weight(pad(out_of.weight, (0, extra)), out_of.bias),
    ]


def _ends_in_class_token(tower: Tower) -> bool:
    """Whether a tower may compute its last layer for the class token alone."""
    pruned = any(isinstance(layer.self_attn, PrunedAttention) for layer in tower.layers)
    return tower.reads_class_token and (pruned or isinstance(tower.root, ReducedTower))
