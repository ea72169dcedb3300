"""Encoders that a composed CLIP may be made of, each from the library that it comes from.

Part of every checkpoint of such a model, beside `modeling_composed_clip`. An image encoder is a
timm backbone without its classifier, a text encoder a transformer of transformers' with a pooling;
either may be a tower of open_clip's (`open_clip_encoders`).

Modifications, each made only where the configuration asks for it:
- `reparameterized`: branches that only training needs are merged into one convolution each, by
  timm (RepVGG, arXiv 2101.03697; MobileOne, arXiv 2206.04040; FastViT, arXiv 2303.14189).
- `sigmoid_attention`: a vision transformer of timm's attends by σ(qkᵀ/√h − log n) in place of the
  softmax over n tokens (arXiv 2409.04431, equation 3 and section 3.1).
"""

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from .checks import check_choice, check_range, short
from .libraries import Module, library
from .open_clip_encoders import (
    OpenClipTextEncoder,
    check_arguments,
    tower_of_open_clip,
    without_projection,
)

LIBRARIES = ("timm", "open_clip")
"""Where image encoders come from."""
TEXT_LIBRARIES = ("transformers", "open_clip")
"""Where text encoders come from."""
POOLINGS = ("mean", "first", "last")
"""Which tokens make a text's embedding: the mean of all, the first, the last; padding aside."""
MERGED_AT_ONCE = ("fastvit",)
"""Modules of timm whose models can be made in their merged form, which saves seconds."""
REFUSED = ("pretrained", "checkpoint", "cache", "features_only", "scriptable", "exportable")
"""How arguments begin by which a library would fetch weights, or make another kind of model."""


def check_vision(config: PreTrainedConfig) -> None:
    """Raise `ValueError`, naming the entry, unless an image encoder can be as it is described."""
    check_choice("library", config.library, LIBRARIES)
    for name in ("image_size", "num_channels", "hidden_size", "projection_dim"):
        check_range(name, getattr(config, name), 1, required=True)
    check_range("random_features", config.random_features, 0)
    if config.library == "open_clip":
        check_arguments(config.arguments, "vision_cfg")
        return
    arguments = config.arguments or {}
    if not isinstance(arguments, Mapping):
        raise ValueError(f"arguments takes names and values, found {short(arguments)}")
    if refused := [name for name in arguments if str(name).startswith(REFUSED)]:
        raise ValueError(f"arguments can't hold {refused[0]!r}")
    timm = library("timm")
    if not isinstance(config.architecture, str) or not timm.is_model(config.architecture):
        raise ValueError(
            f"architecture is the name of a model of timm {timm.__version__}, found "
            f"{short(config.architecture)}"
        )


def check_text(config: PreTrainedConfig) -> None:
    """Raise `ValueError`, naming the entry, unless a text encoder can be as it is described."""
    check_choice("library", config.library, TEXT_LIBRARIES)
    check_choice("pooling", config.pooling, POOLINGS)
    for name in ("hidden_size", "projection_dim", "vocab_size", "max_position_embeddings"):
        check_range(name, getattr(config, name), 1, required=True)
    check_range("projection_hidden", config.projection_hidden, 0, required=True)
    check_range("pad_id", config.pad_id, 0, required=True)
    if config.library == "open_clip":
        check_arguments(config.arguments, "text_cfg")
        return
    kind = (config.encoder or {}).get("model_type")
    if kind not in CONFIG_MAPPING:
        raise ValueError(f"encoder is a configuration of transformers', found {short(kind)}")


class ImageEncoder(nn.Module):
    """Pixels [b, 3, height, width] → features [b, d], by an encoder of another library."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = backbone(config)

    def forward(self, pixel_values: Tensor, **_asked: Any) -> BaseModelOutputWithPooling:
        """The features as `pooler_output`; there are no hidden states that mean the same in all."""
        return BaseModelOutputWithPooling(pooler_output=self.encoder(pixel_values))


def backbone(config: PreTrainedConfig, **loading: Any) -> Module:
    """An image encoder without its classifier; `loading` are further arguments of timm's maker."""
    merged = False
    if config.library == "open_clip":
        made = tower_of_open_clip(config.arguments, "vision_cfg")
        without_projection(made)
    else:
        timm = library("timm")
        arguments = {"in_chans": config.num_channels, **(config.arguments or {}), **loading}
        merged = config.reparameterized and timm.models.is_model_in_modules(
            config.architecture, MERGED_AT_ONCE
        )
        if merged:
            arguments["inference_mode"] = True
        made = timm.create_model(config.architecture, num_classes=0, **arguments)
    if config.sigmoid_attention:
        attend_by_sigmoid(made)
    if config.reparameterized and not merged:
        reparameterize(made)
    return made


def reparameterize(model: Module) -> None:
    """Merge the branches of a model that only training needs, in place; it stays trainable."""
    library("timm").utils.reparameterize_model(model, inplace=True)
    for parameter in model.parameters():
        parameter.requires_grad_(True)


def attend_by_sigmoid(model: Module) -> None:
    """Give the attention of a vision transformer of timm's a sigmoid, in place.

    Raises:
        ValueError: it has no attention of the plain kind.
    """
    kind = library("timm").layers.Attention
    plain = [
        module
        for module in model.modules()
        if type(module) is kind and getattr(module, "gate", None) is None
    ]
    if not plain:
        raise ValueError(
            f"sigmoid attention is for timm's plain vision transformers, not {type(model).__name__}"
        )
    for attention in plain:
        attention.forward = _Sigmoid(attention)


class _Sigmoid:
    """The forward pass of an attention of timm's, by a sigmoid; copied with its module."""

    def __init__(self, attention: Module) -> None:
        self.attention = attention

    def __call__(self, x: Tensor, attn_mask: Tensor | None = None, **_asked: Any) -> Tensor:
        own = self.attention
        b, n, _ = x.shape
        q, k, v = own.qkv(x).reshape(b, n, 3, own.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        q, k = own.q_norm(q), own.k_norm(k)
        logits = q @ k.transpose(-2, -1) * own.scale - math.log(n)
        if attn_mask is not None:
            logits = logits + attn_mask
        attended = own.attn_drop(torch.sigmoid(logits)) @ v
        joined = attended.transpose(1, 2).reshape(b, n, -1)
        if hasattr(own, "norm"):  # from timm 1.0.16 on
            joined = own.norm(joined)
        projected: Tensor = own.proj_drop(own.proj(joined))
        return projected


def text_encoder(config: PreTrainedConfig) -> nn.Module:
    """The text encoder that a configuration describes, untrained."""
    own = OpenClipTextEncoder if config.library == "open_clip" else TextEncoder
    return own(config)


class TextEncoder(nn.Module):
    """Tokens [b, n] → features [b, d], by a transformer of transformers' and a pooling.

    Of one that has an encoder and a decoder, the encoder is taken.
    """

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        self.config = config
        entries = copy.deepcopy(config.encoder)
        own = CONFIG_MAPPING[entries.pop("model_type")](**entries)
        self.encoder: Module = AutoModel.from_config(own, trust_remote_code=False)
        if getattr(own, "is_encoder_decoder", False):
            self.encoder = self.encoder.get_encoder()
        if getattr(self.encoder, "pooler", None) is not None:
            self.encoder.pooler = None  # no pooling here reads it
        self.pool = _POOLING[config.pooling]

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **others: Any
    ) -> BaseModelOutputWithPooling:
        """Hidden states [b, n, d], and what is pooled from them [b, d]."""
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        given = {name: value for name, value in others.items() if name == "token_type_ids"}
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **given)[0]
        return BaseModelOutputWithPooling(
            last_hidden_state=hidden, pooler_output=self.pool(hidden, attention_mask)
        )


def _mean(hidden: Tensor, mask: Tensor) -> Tensor:
    weights = mask[..., None].to(hidden.dtype)
    total: Tensor = (hidden * weights).sum(1) / weights.sum(1).clamp_min(1e-9)
    return total


def _first(hidden: Tensor, _mask: Tensor) -> Tensor:
    return hidden[:, 0]


def _last(hidden: Tensor, mask: Tensor) -> Tensor:
    """The last token that isn't padding, on whichever side that is."""
    places = torch.arange(mask.shape[1], device=mask.device) * mask
    return hidden[torch.arange(len(hidden), device=hidden.device), places.argmax(1)]


_POOLING: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": _mean,
    "first": _first,
    "last": _last,
}
