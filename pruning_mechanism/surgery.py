"""Mask + tower → smaller tower, and the same thing without cutting.

`prune` gives a model that is physically smaller; `masked` makes the dense one answer as if it
were. Both are the same function of the images, to rounding.
"""

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch_pruning import prune_linear_in_channels, prune_linear_out_channels

from pruning_mechanism.mask import Mask
from pruning_mechanism.modeling_pruned_clip import (
    PrunedCLIPConfig,
    PrunedCLIPModel,
    PrunedCLIPVisionConfig,
    PrunedCLIPVisionModelWithProjection,
)
from pruning_mechanism.tower import TowerError, sublayers, vision_config


def is_pruned(model: nn.Module) -> bool:
    """Whether the model's vision tower has been made smaller before."""
    return isinstance(model, PrunedCLIPModel | PrunedCLIPVisionModelWithProjection)


@contextmanager
def masked(model: nn.Module, mask: Mask) -> Iterator[nn.Module]:
    """Within the context the dense `model` answers as if pruned to `mask`.

    Works by forward pre-hooks on the output projections, so gradients flow as in a pruned tower.

    Raises:
        ValueError: the mask doesn't fit the tower.
    """
    mask.check(model.config)
    with ExitStack() as stack:
        for sublayer in sublayers(model):
            keep = getattr(mask, sublayer.kind)[sublayer.layer]
            if not keep.all():
                factors = keep.repeat_interleave(sublayer.unit_width)
                stack.enter_context(sublayer.watch(_scale_by(factors)))
        yield model


def _scale_by(factors: Tensor):
    return lambda features: features * factors.to(features)


def prune(model: nn.Module, mask: Mask) -> nn.Module:
    """A new model without the heads and neurons that `mask` drops; `model` stays as it is.

    Args:
        model: a dense `CLIPModel` or `CLIPVisionModelWithProjection`, on any device.
        mask: what to keep; a layer may keep no head, or no neuron.

    Raises:
        ValueError: the mask doesn't fit the tower.
        TowerError: the tower has been pruned already.
    """
    if is_pruned(model):
        raise TowerError("this tower is pruned already: prune the checkpoint that it was made from")
    mask.check(model.config)
    cut = copy.deepcopy(model)
    for layer, heads, neurons in zip(
        cut.vision_model.encoder.layers, mask.heads, mask.neurons, strict=True
    ):
        _cut_layer(layer, heads, neurons)
    # on the meta device the new model costs nothing; it then takes over the cut one's tensors
    with torch.device("meta"):
        smaller = _empty(model, mask)
    smaller.load_state_dict(cut.state_dict(), assign=True)
    for name, buffer in cut.named_buffers():  # position ids are not in the state dictionary
        owner, _, leaf = name.rpartition(".")
        setattr(smaller.get_submodule(owner), leaf, buffer)
    for new, old in zip(smaller.parameters(), cut.parameters(), strict=True):
        new.requires_grad_(old.requires_grad)
    return smaller.train(model.training)


def _empty(model: nn.Module, mask: Mask) -> nn.Module:
    """A pruned model of the right class and shape, its weights not set."""
    widths = {
        "heads_per_layer": mask.heads.sum(1).tolist(),
        "neurons_per_layer": mask.neurons.sum(1).tolist(),
    }
    vision = _settings(vision_config(model.config)) | widths
    attention = model.config._attn_implementation
    if hasattr(model, "text_model"):
        config = PrunedCLIPConfig(**_settings(model.config) | {"vision_config": vision})
        return PrunedCLIPModel._from_config(config, attn_implementation=attention)
    config = PrunedCLIPVisionConfig(**vision)
    return PrunedCLIPVisionModelWithProjection._from_config(config, attn_implementation=attention)


def _settings(config) -> dict:
    """A configuration's entries, without the name of the class that it belongs to."""
    return {k: v for k, v in config.to_dict().items() if k not in ("model_type", "architectures")}


def _cut_layer(layer: nn.Module, heads: Tensor, neurons: Tensor) -> None:
    """Cut the dropped heads and neurons out of one encoder layer, in place."""
    attention, mlp = layer.self_attn, layer.mlp
    channels = (~heads.repeat_interleave(attention.head_dim)).nonzero().flatten().tolist()
    for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
        prune_linear_out_channels(projection, channels)
    prune_linear_in_channels(attention.out_proj, channels)
    dropped = (~neurons).nonzero().flatten().tolist()
    prune_linear_out_channels(mlp.fc1, dropped)
    prune_linear_in_channels(mlp.fc2, dropped)
