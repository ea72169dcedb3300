"""Mask + tower → smaller tower, and the same thing without cutting.

`prune` gives a model that is physically smaller; `masked` makes the dense one answer as if it
were. Both are the same function of the images, to rounding.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.initialization import no_init_weights

from pruning_mechanism.families import (
    WIDTHS,
    TowerError,
    TowerKind,
    config_class,
    pruned_class,
    tower_config,
)
from pruning_mechanism.mask import Mask
from pruning_mechanism.protocols import Config, EncoderLayer
from pruning_mechanism.tower import Tower


def is_pruned(model: PreTrainedModel, tower: TowerKind = "vision") -> bool:
    """Whether a tower of the model has been made smaller before."""
    config = tower_config(model.config, tower)
    return any(getattr(config, name, None) is not None for name in WIDTHS)


@contextmanager
def masked(
    model: PreTrainedModel, mask: Mask, tower: TowerKind = "vision"
) -> Iterator[PreTrainedModel]:
    """Within the context a dense tower of `model` answers as if pruned to `mask`.

    Works by hooks on the queries and on the output projections' inputs, so gradients flow as in a
    pruned tower.

    Raises:
        ValueError: the mask doesn't fit the tower.
        TowerError: the tower is pruned already, or the model has no such tower that fits.
    """
    if is_pruned(model, tower):
        raise TowerError("this tower is pruned already: mask the checkpoint that it was made from")
    mask.check(model.config, tower)
    with ExitStack() as stack:
        for sublayer in Tower.of(model, tower).sublayers:
            index, keep = sublayer.layer, mask.neurons[sublayer.layer]
            if sublayer.kind == "heads":
                _, keep = _kept_channels(mask, index, sublayer.unit_width)
                if mask.qk_dims is not None:  # a logit misses what its query doesn't have
                    queries = mask.qk_dims[index].repeat(sublayer.units)
                    hook = sublayer.attention.q_proj.register_forward_hook(
                        _scale_output_by(queries)
                    )
                    stack.callback(hook.remove)
            if not keep.all():
                stack.enter_context(sublayer.watch(_scale_by(keep)))
        yield model


def _kept_channels(mask: Mask, layer: int, head_dim: int) -> tuple[Tensor, Tensor]:
    """Which of a dense layer's query and key, and of its value, channels stay, bool[H * h] each."""
    heads, every = mask.heads[layer], torch.ones(head_dim, dtype=torch.bool)
    queries = every if mask.qk_dims is None else mask.qk_dims[layer]
    values = every if mask.value_dims is None else mask.value_dims[layer]
    return torch.outer(heads, queries).flatten(), torch.outer(heads, values).flatten()


def _scale_by(keep: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda features: features * keep.to(features)


def _scale_output_by(keep: Tensor) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    return lambda _module, _args, projected: projected * keep.to(projected)


def prune(model: PreTrainedModel, mask: Mask, tower: TowerKind = "vision") -> PreTrainedModel:
    """A new model without what `mask` drops; `model` stays as it is.

    Args:
        model: a whole model or a vision tower of a family that fits, on any device; its other tower
            may have been pruned before.
        mask: what to keep; a layer may keep no head, or no neuron.
        tower: which one to prune.

    Raises:
        ValueError: the mask doesn't fit the tower.
        TowerError: the tower has been pruned already, or the model has no such tower that fits.
    """
    if is_pruned(model, tower):
        raise TowerError("this tower is pruned already: prune the checkpoint that it was made from")
    mask.check(model.config, tower)
    cut = copy.deepcopy(model)
    for index, layer in enumerate(Tower.of(cut, tower).layers):
        _cut_layer(layer, mask, index)
    kept = dict(zip(WIDTHS, (mask.heads, mask.neurons, mask.qk_dims, mask.value_dims), strict=True))
    widths = {name: bits if bits is None else bits.sum(1).tolist() for name, bits in kept.items()}
    return rebuilt(cut, widths, tower)


def rebuilt(
    model: PreTrainedModel, entries: dict[str, Any], tower: TowerKind = "vision"
) -> PreTrainedModel:
    """A model of the pruned classes whose tower's configuration has other entries.

    It takes over the tensors of `model`, which must fit: they are not copied.
    """
    own = _settings(tower_config(model.config, tower)) | entries
    settings = _settings(model.config) | {f"{tower}_config": own} if _is_whole(model) else own
    new = pruned_class(model.config)
    # weights that are replaced take no memory, and aren't drawn
    with torch.device("meta"), no_init_weights():
        made: PreTrainedModel = new._from_config(
            config_class(new)(**settings), attn_implementation=model.config._attn_implementation
        )
    made.load_state_dict(model.state_dict(), assign=True)
    for name, buffer in model.named_buffers():  # position ids are not in the state dictionary
        owner, _, leaf = name.rpartition(".")
        setattr(made.get_submodule(owner), leaf, buffer)
    wanted = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    for name, parameter in made.named_parameters():
        parameter.requires_grad_(wanted[name])
    made.train(model.training)
    return made


def _is_whole(model: PreTrainedModel) -> bool:
    return tower_config(model.config, "vision") is not model.config


def _settings(config: Config) -> dict[str, Any]:
    """A configuration's entries, without the name of the class that it belongs to."""
    return {k: v for k, v in config.to_dict().items() if k not in ("model_type", "architectures")}


def _cut_layer(layer: EncoderLayer, mask: Mask, index: int) -> None:
    """Cut what the mask drops out of one encoder layer, in place."""
    # here, because a program that only loads smaller towers needs nothing that cuts
    from torch_pruning import prune_linear_in_channels, prune_linear_out_channels

    attention, mlp = layer.self_attn, layer.mlp
    queries, values = map(_dropped, _kept_channels(mask, index, attention.head_dim))
    for projection, channels in (
        (attention.q_proj, queries),
        (attention.k_proj, queries),
        (attention.v_proj, values),
    ):
        prune_linear_out_channels(projection, channels)
    prune_linear_in_channels(attention.out_proj, values)
    neurons = _dropped(mask.neurons[index])
    prune_linear_out_channels(mlp.fc1, neurons)
    prune_linear_in_channels(mlp.fc2, neurons)
    if not mask.heads[index].any():
        layer.layer_norm1 = nn.Identity()
    if not mask.neurons[index].any():
        layer.layer_norm2 = nn.Identity()


def _dropped(keep: Tensor) -> list[int]:
    return (~keep).nonzero().flatten().tolist()
