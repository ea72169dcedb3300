"""Models of open_clip that no class of transformers' computes, as composed CLIPs.

Their image towers are taken as a whole, with their last linear map as the projection, so that an
alignment can replace it. Towers whose branches are for training only are deployed: merged.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pruning_mechanism.checkpoints.from_open_clip.naming import Wanted, open_clip
from pruning_mechanism.checkpoints.from_open_clip.plain import DiffersError, Made
from pruning_mechanism.modeling.composed_encoders import reparameterize
from pruning_mechanism.modeling.libraries import Module
from pruning_mechanism.modeling.modeling_composed_clip import (
    ComposedClipConfig,
    ComposedClipModel,
)
from pruning_mechanism.modeling.open_clip_encoders import without_projection

POOLINGS = {
    "mean_pooler": "mean",
    "cls_pooler": "first",
    "cls_last_hidden_state_pooler": "first",
}
"""What open_clip calls the poolings of transformers' text towers."""


@dataclasses.dataclass(frozen=True)
class Side:
    """One tower: the entries of its configuration, its weights and those of its projection."""

    entries: Mapping[str, Any]
    encoder: Mapping[str, Tensor]
    projection: Mapping[str, Tensor]


def composed(model: Module, wanted: Wanted) -> Made:
    """A model of open_clip's as a composed CLIP, its image tower deployed.

    Args:
        model: an `open_clip.CustomTextCLIP` or `CoCa`, whose image tower is changed; its weights
            may be on the meta device.
        wanted: what it was made by.

    Raises:
        DiffersError: its text tower is of a kind that there is no place for.
    """
    texts = _text(model.text, wanted)
    for images in _images(model.visual, wanted):
        config = ComposedClipConfig(
            vision_config=dict(images.entries),
            text_config=dict(texts.entries),
            projection_dim=wanted.model["embed_dim"],
        )
        weights = {
            "logit_scale": model.logit_scale.detach().reshape(()),
            **_under("vision_model.encoder", images.encoder),
            **_under("visual_projection", images.projection),
            **_under("text_model.encoder", texts.encoder),
            **_under("text_projection", texts.projection),
        }
        if fits(config, weights):
            return Made(ComposedClipModel, config, weights)
    raise DiffersError("tower that can't be made again from its configuration")


def fits(config: ComposedClipConfig, weights: Mapping[str, Tensor]) -> bool:
    """Whether a configuration makes a model of these weights' names and sizes."""
    with torch.device("meta"):
        empty = ComposedClipModel(config).state_dict()
    return {name: tensor.shape for name, tensor in empty.items()} == {
        name: tensor.shape for name, tensor in weights.items()
    }


def deployed(visual: Module) -> bool:
    """Merge the branches of an image tower that only training needs, in place; whether it has any.

    A tower of open_clip's that holds a backbone of timm's has them there.
    """
    before = {name: tensor.shape for name, tensor in visual.state_dict().items()}
    reparameterize(visual)
    return before != {name: tensor.shape for name, tensor in visual.state_dict().items()}


def _images(visual: Module, wanted: Wanted) -> list[Side]:
    """The forms that an image tower may have here, that with a projection of its own first."""
    height, width = (
        visual.image_size
        if isinstance(visual.image_size, (tuple, list))
        else (visual.image_size,) * 2
    )
    if height != width:
        raise DiffersError(f"images of {height} x {width} pixels")
    entries = {
        "image_size": int(height),
        "projection_dim": wanted.model["embed_dim"],
        "reparameterized": deployed(visual),
    }
    forms = []
    if isinstance(visual, open_clip().timm_model.TimmModel):
        forms = _of_timm(visual, wanted, entries)
    return [*forms, _of_open_clip(visual, wanted, entries)]


def _of_timm(visual: Module, wanted: Wanted, entries: Mapping[str, Any]) -> list[Side]:
    """A backbone of timm's with one linear map behind it, or none; no form: another head."""
    asked = wanted.model["vision_cfg"]
    trunk, head = visual.trunk, dict(visual.head.named_children())
    tensors = trunk.state_dict()
    if set(head) - {"drop", "proj"}:
        return []  # it pools by attention, or projects by an MLP
    pooling = asked.get("timm_pool", "avg")
    arguments = {"global_pool": pooling} if pooling else {}
    own = {
        **entries,
        "library": "timm",
        "architecture": asked["timm_model_name"],
        "arguments": arguments,
    }
    last, prefix = head.get("proj"), None
    if last is None and asked.get("timm_proj") != "none":
        last, prefix = trunk.get_classifier(), trunk.pretrained_cfg.get("classifier")
    if last is None or isinstance(last, nn.Identity):
        features = {"hidden_size": wanted.model["embed_dim"], "projected": False}
        return [Side({**own, **features}, tensors, {})]
    if not isinstance(last, nn.Linear) or (prefix is not None and not isinstance(prefix, str)):
        return []
    if prefix:
        tensors = {
            name: tensor for name, tensor in tensors.items() if not name.startswith(f"{prefix}.")
        }
    features = {"hidden_size": last.in_features, "projected": True}
    bias = last.weight.new_zeros(last.out_features) if last.bias is None else last.bias
    return [Side({**own, **features}, tensors, _linear(last.weight, bias))]


def _of_open_clip(visual: Module, wanted: Wanted, entries: Mapping[str, Any]) -> Side:
    """A tower of open_clip's own, without the matrix that it ends in, where it does."""
    matrix = without_projection(visual)
    outputs = wanted.model["embed_dim"]
    own = {
        **entries,
        "library": "open_clip",
        "architecture": wanted.name,
        "arguments": _arguments(wanted, "vision_cfg"),
        "hidden_size": outputs if matrix is None else matrix.shape[0],
        "projected": matrix is not None,
    }
    projection = {} if matrix is None else _linear(matrix.T, matrix.new_zeros(outputs))
    return Side(own, visual.state_dict(), projection)


def _linear(weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    """The tensors of an aligned projection that is this linear map."""
    return {"linear.weight": weight.detach(), "linear.bias": bias.detach()}


def _arguments(wanted: Wanted, tower: str) -> dict[str, Any]:
    """What open_clip makes a tower by, without what would fetch weights or read texts."""
    own = {
        name: value
        for name, value in wanted.model[tower].items()
        if not name.startswith(("timm_model_pretrained", "hf_", "tokenizer"))
    }
    shared = {"embed_dim": wanted.model["embed_dim"]}
    return {**shared, "quick_gelu": bool(wanted.model.get("quick_gelu")), tower: own}


def _text(text: Module, wanted: Wanted) -> Side:
    outputs = wanted.model["embed_dim"]
    entries = {"projection_dim": outputs, "max_position_embeddings": context_length(wanted)}
    if hasattr(text, "pooler"):  # HFTextEncoder
        return _text_of_transformers(text, wanted, entries)
    own = {
        **entries,
        "library": "open_clip",
        "arguments": _arguments(wanted, "text_cfg"),
        "hidden_size": outputs,
        "projected": False,
        "vocab_size": text.vocab_size,
        "pad_id": text.pad_id,
    }
    return Side(own, text.state_dict(), {})


def _text_of_transformers(text: Module, wanted: Wanted, entries: Mapping[str, Any]) -> Side:
    pooling = POOLINGS.get(wanted.text.get("hf_pooler_type", "mean_pooler"))
    encoder = text.transformer.state_dict()
    if pooling is None or any(name.startswith("pooler.") for name in encoder):
        raise DiffersError("pooling of its text tower")
    projection = dict(text.proj.named_children())
    hidden = projection["0"].out_features if projection else 0
    own = {
        **entries,
        "library": "transformers",
        "encoder": text.config.to_dict(),
        "pooling": pooling,
        "hidden_size": text.config.hidden_size,
        "projected": not isinstance(text.proj, nn.Identity),
        "projection_hidden": hidden,
        "vocab_size": text.config.vocab_size,
    }
    return Side(own, encoder, text.proj.state_dict())


def context_length(wanted: Wanted) -> int:
    """How many tokens of a text open_clip reads."""
    length: int = wanted.text.get("context_length", open_clip().tokenizer.DEFAULT_CONTEXT_LENGTH)
    return length


def _under(root: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{root}.{name}": tensor for name, tensor in tensors.items()}
