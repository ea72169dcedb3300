"""Towers of open_clip's own, for a composed CLIP: what neither timm nor transformers has.

Part of every checkpoint of such a model, beside `composed_encoders`. A tower is that of an
`open_clip.CustomTextCLIP` whose other tower is as small as can be; its `arguments` are entries of
open_clip's own configuration of a model.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import PreTrainedConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling

from .checks import check_range, short
from .libraries import Module, library

SMALLEST: Mapping[str, Mapping[str, Any]] = {
    "vision_cfg": {"layers": 1, "width": 8, "head_width": 8, "patch_size": 1, "image_size": 1},
    "text_cfg": {"layers": 1, "width": 8, "heads": 1, "vocab_size": 1, "context_length": 1},
}
"""Towers that cost nothing, under what a configuration of open_clip's calls them."""


def check_arguments(arguments: Any, tower: str) -> None:
    """Raise `ValueError` unless `tower_of_open_clip` may be given these.

    Libraries fetch weights or code by some names, so that none of those may stand there.
    """
    own, allowed = (arguments or {}).get(tower), {"embed_dim", "quick_gelu", tower}
    if not isinstance(own, Mapping) or not set(arguments) <= allowed:
        raise ValueError(
            f"arguments of a tower of open_clip's are {', '.join(sorted(allowed))}, found "
            f"{short(arguments)}"
        )
    check_range("embed_dim", arguments.get("embed_dim"), 1, required=True)
    backbone = own.get("timm_model_name")
    if backbone is not None and (not isinstance(backbone, str) or not _in_timm(backbone)):
        raise ValueError(f"timm_model_name is the name of a model of timm, found {short(backbone)}")
    if own.get("timm_model_pretrained") or own.get("hf_model_name"):
        raise ValueError("arguments can't name weights to fetch")


def _in_timm(name: str) -> bool:
    known: bool = library("timm").is_model(name)
    return known


def tower_of_open_clip(arguments: Mapping[str, Any], tower: str) -> Module:
    """A tower as open_clip makes it, untrained.

    Args:
        arguments: `embed_dim`, perhaps `quick_gelu`, and the entry `tower` of a configuration.
        tower: "vision_cfg" or "text_cfg".

    Raises:
        ValueError: open_clip isn't installed.
    """
    asked = {tower: {**arguments[tower], "output_tokens": False}}
    made = library("open_clip").CustomTextCLIP(
        embed_dim=arguments["embed_dim"],
        quick_gelu=bool(arguments.get("quick_gelu", False)),
        **{**SMALLEST, **asked},
    )
    return made.visual if tower == "vision_cfg" else made.text


def without_projection(visual: Module) -> Tensor | None:
    """Take the matrix [d, e] that a vision transformer of open_clip's ends in off it, in place.

    None, and unchanged: another tower, whose features are its embedding.
    """
    matrix: Tensor | None = None
    if isinstance(visual, library("open_clip").transformer.VisionTransformer):
        matrix = visual.proj
        visual.proj = None
    return matrix


def make_mask(module: nn.Module) -> None:
    """Make the mask of a causal text tower of open_clip's anew, which no file holds."""
    if hasattr(module, "build_causal_mask") and module.attn_mask is not None:
        text: Module = module
        text.attn_mask = text.build_causal_mask().to(text.positional_embedding.device)


class OpenClipTextEncoder(nn.Module):
    """Tokens [b, n] → embeddings [b, e], by a text tower of open_clip's with its projection.

    Such a tower may see the padding: texts are padded to the context length as it was trained,
    with token `pad_id`, however they are padded when they come in.
    """

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = tower_of_open_clip(config.arguments, "text_cfg")

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **_others: Any
    ) -> BaseModelOutputWithPooling:
        """The embeddings as `pooler_output`."""
        if attention_mask is not None:
            padding = torch.full_like(input_ids, self.config.pad_id)
            input_ids = torch.where(attention_mask.bool(), input_ids, padding)
        absent = self.config.max_position_embeddings - input_ids.shape[1]
        ids = pad(input_ids, (0, absent), value=self.config.pad_id)
        return BaseModelOutputWithPooling(pooler_output=self.encoder(ids))
