"""A pruned tower as wide as it was before, so that it can be scored and pruned once more.

What was cut away comes back as zeros: the tower computes what it did, and every rule that takes a
dense tower takes this one. Which of its units are real is told beside it.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pruning_mechanism.families import WIDTHS, TowerKind, tower_config
from pruning_mechanism.mask import Mask
from pruning_mechanism.surgery import rebuilt
from pruning_mechanism.tower import Tower


@dataclass(frozen=True)
class Widened:
    """A model one of whose towers is as wide as before pruning; `alive` are its real units."""

    model: PreTrainedModel
    alive: Mask


@torch.no_grad()
def widened(model: PreTrainedModel, tower: TowerKind = "vision") -> Widened:
    """A new model whose tower has the dense widths, zeros in place of what was cut away.

    Its embeddings are the same, to rounding. In each layer the real heads come first, of each head
    the real dimensions, and the real neurons.

    Args:
        model: a model of a family that fits, on any device; it stays as it is.
        tower: which of its towers.
    """
    copied, own = copy.deepcopy(model), tower_config(model.config, tower)
    every, head_dim = own.num_attention_heads, own.hidden_size // own.num_attention_heads
    found = Tower.of(copied, tower)
    alive = _alive(found, every, head_dim, own.intermediate_size)
    heads = alive.heads.sum(1)
    for layer, count in zip(found.layers, heads.tolist(), strict=True):
        attention, mlp = layer.self_attn, layer.mlp
        for name in ("q_proj", "k_proj", "v_proj"):
            rows = _head_places(getattr(attention, name).out_features, count, head_dim)
            setattr(attention, name, _with_rows(getattr(attention, name), rows, every * head_dim))
        columns = _head_places(attention.out_proj.in_features, count, head_dim)
        attention.out_proj = _with_columns(attention.out_proj, columns, every * head_dim)
        own_neurons = torch.arange(mlp.fc1.out_features)
        mlp.fc1 = _with_rows(mlp.fc1, own_neurons, own.intermediate_size)
        mlp.fc2 = _with_columns(mlp.fc2, own_neurons, own.intermediate_size)
        for name in ("layer_norm1", "layer_norm2"):
            if isinstance(getattr(layer, name), nn.Identity):
                norm = nn.LayerNorm(own.hidden_size, eps=own.layer_norm_eps)
                setattr(layer, name, norm.to(mlp.fc2.weight))
    return Widened(rebuilt(copied, dict.fromkeys(WIDTHS), tower), alive)


def _alive(tower: Tower, heads: int, head_dim: int, neurons: int) -> Mask:
    """What a pruned tower has, as the first of so many units and of the dimensions of a head."""

    def first(counts: list[int], size: int) -> Tensor:
        return torch.arange(size) < torch.tensor(counts)[:, None]

    counts = [part.units for part in tower.sublayers[::2]]
    sizes = []
    for name in ("q_proj", "v_proj"):
        channels = [getattr(layer.self_attn, name).out_features for layer in tower.layers]
        of_layer = [c // n if n else head_dim for c, n in zip(channels, counts, strict=True)]
        sizes.append(None if set(of_layer) == {head_dim} else first(of_layer, head_dim))
    return Mask(
        first(counts, heads),
        first([part.units for part in tower.sublayers[1::2]], neurons),
        *sizes,
    )


def _head_places(channels: int, heads: int, head_dim: int) -> Tensor:
    """Where the channels of so many heads stand among those of heads of the dense size."""
    size = channels // heads if heads else 0
    return (torch.arange(heads)[:, None] * head_dim + torch.arange(size)).flatten()


def _with_rows(linear: nn.Linear, places: Tensor, rows: int) -> nn.Linear:
    """A layer of so many outputs, the given one's at these places and zeros elsewhere."""
    made = _zeros(linear, linear.in_features, rows)
    made.weight[places] = linear.weight
    if linear.bias is not None:
        made.bias[places] = linear.bias
    return made


def _with_columns(linear: nn.Linear, places: Tensor, columns: int) -> nn.Linear:
    """A layer of so many inputs, those at these places being the given one's."""
    made = _zeros(linear, columns, linear.out_features)
    made.weight[:, places] = linear.weight
    if linear.bias is not None:
        made.bias.copy_(linear.bias)
    return made


def _zeros(like: nn.Linear, inputs: int, outputs: int) -> nn.Linear:
    with torch.device(like.weight.device):
        made = nn.Linear(inputs, outputs, like.bias is not None, dtype=like.weight.dtype)
    for parameter in made.parameters():
        parameter.zero_()
        parameter.requires_grad_(like.weight.requires_grad)
    return made
