"""Plain transformers of open_clip and timm as models of transformers', so that every rule applies.

A tower is plain if transformers has a class that computes the same: CLIP (a class token, a norm
before the layers, a causal text tower read at its end), MetaCLIP 2 (the same, read at a token of
its own) and SigLIP (attention pooling, a text tower that sees all and is read at its last token).
Every weight must have its place there; a tower with a part more or less is none of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    CLIPConfig,
    CLIPModel,
    MetaClip2Config,
    MetaClip2Model,
    PreTrainedConfig,
    PreTrainedModel,
    SiglipConfig,
    SiglipModel,
)

from pruning_mechanism.checkpoints.from_open_clip.naming import open_clip
from pruning_mechanism.modeling.libraries import Module, library

OPEN_CLIP_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
TIMM_LAYER = {
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.proj": "self_attn.out_proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
FUSED = {
    "attn.in_proj_weight": "weight",
    "attn.in_proj_bias": "bias",
    "attn.qkv.weight": "weight",
    "attn.qkv.bias": "bias",
}
"""Where queries, keys and values stand one above another."""
VISION = {
    "class_embedding": "embeddings.class_embedding",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_pre": "pre_layrnorm",
    "ln_post": "post_layernorm",
}
TEXT = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final": "final_layer_norm",
    "text_projection.weight": "head.weight",
    "text_projection.bias": "head.bias",
}
SIGLIP_VISION = {
    "pos_embed": "embeddings.position_embedding.weight",
    "patch_embed.proj": "embeddings.patch_embedding",
    "norm": "post_layernorm",
    "attn_pool.latent": "head.probe",
    "attn_pool.q.weight": "q.weight",
    "attn_pool.q.bias": "q.bias",
    "attn_pool.kv.weight": "kv.weight",
    "attn_pool.kv.bias": "kv.bias",
    "attn_pool.proj": "head.attention.out_proj",
    "attn_pool.norm": "head.layernorm",
    "attn_pool.mlp.fc1": "head.mlp.fc1",
    "attn_pool.mlp.fc2": "head.mlp.fc2",
}


class DiffersError(ValueError):
    """A tower that has a part which the class of transformers' lacks; says which."""


@dataclass(frozen=True)
class Made:
    """A model that is yet to be made: its class, its configuration and its weights."""

    kind: type[PreTrainedModel]
    config: PreTrainedConfig
    weights: Mapping[str, Tensor]


def plain(model: Module, own_tokenizer: bool) -> Made:
    """A model of open_clip's as the class of transformers' that computes the same.

    Args:
        model: an `open_clip.CustomTextCLIP`; its weights may be on the meta device.
        own_tokenizer: whether texts are read by open_clip's own tokenizer.

    Raises:
        DiffersError: there is no such class.
    """
    if isinstance(model.visual, open_clip().timm_model.TimmModel):
        return _siglip(model)
    return _clip(model, own_tokenizer)


def _clip(model: Module, own_tokenizer: bool) -> Made:
    visual, text = model.visual, model.text
    _expect(isinstance(visual, open_clip().transformer.VisionTransformer), "no transformer")
    _expect(visual.attn_pool is None and visual.pool_type == "tok", "pooling")
    _check_text(text)
    _expect(text.attn_mask is not None and text.cls_emb is None, "text mask")
    _expect(text.pool_type == "eos" or (text.pool_type == "argmax" and own_tokenizer), "text end")
    _expect(isinstance(text.text_projection, nn.Parameter), "text projection")
    _expect(isinstance(visual.proj, nn.Parameter), "projection")
    side, patch = _square(visual.image_size), _square(visual.patch_size)
    outputs = visual.proj.shape[1]
    end = text.eos_id if text.pool_type == "eos" else open_clip().SimpleTokenizer().eot_token_id
    entries: dict[str, Any] = {
        "vision_config": _sizes(visual.transformer, visual.ln_post, outputs)
        | {"image_size": side, "patch_size": patch},
        "text_config": _text_sizes(text, outputs) | {"eos_token_id": end, "pad_token_id": end},
        "projection_dim": outputs,
    }
    images, texts = visual.state_dict(), text.state_dict()
    weights = {
        "visual_projection.weight": images.pop("proj").T,
        "text_projection.weight": texts.pop("text_projection").T,
        "logit_scale": model.logit_scale.detach().reshape(()),
        **_placed("vision_model", images, VISION, "transformer.resblocks.", OPEN_CLIP_LAYER),
        **_placed("text_model", texts, TEXT, "transformer.resblocks.", OPEN_CLIP_LAYER),
    }
    if text.pool_type == "eos":
        return Made(MetaClip2Model, MetaClip2Config(**entries), weights)
    return Made(CLIPModel, CLIPConfig(**entries), weights)


def _siglip(model: Module) -> Made:
    trunk, text = model.visual.trunk, model.text
    layers = library("timm").layers
    _expect(isinstance(trunk, library("timm").models.vision_transformer.VisionTransformer), "trunk")
    _expect(not len(model.visual.head), "projection")
    _expect(isinstance(trunk.attn_pool, layers.AttentionPoolLatent), "pooling")
    _expect(trunk.cls_token is None and trunk.reg_token is None, "class token")
    _expect(not any(True for _ in trunk.fc_norm.parameters()), "norm before the head")
    _check_text(text)
    _expect(text.attn_mask is None and text.cls_emb is None and text.pool_type == "last", "text")
    _expect(text.text_projection is not None, "text projection")
    block, pool = trunk.blocks[0], trunk.attn_pool
    _expect(_activation(block.mlp.act) == _activation(pool.mlp.act), "activation of the head")
    vision = {
        "hidden_size": trunk.embed_dim,
        "intermediate_size": block.mlp.fc1.out_features,
        "num_hidden_layers": len(trunk.blocks),
        "num_attention_heads": block.attn.num_heads,
        "image_size": _square(trunk.patch_embed.img_size),
        "patch_size": _square(trunk.patch_embed.patch_size),
        "layer_norm_eps": trunk.norm.eps,
        "hidden_act": _activation(block.mlp.act),
    }
    _expect(pool.num_heads == block.attn.num_heads, "heads of the head")
    outputs, texts = text.output_dim, text.state_dict()
    if isinstance(text.text_projection, nn.Parameter):  # else a layer with a bias
        matrix = texts.pop("text_projection").T
        texts["text_projection.weight"] = matrix
        texts["text_projection.bias"] = matrix.new_zeros(outputs)
    _expect(outputs == trunk.embed_dim, "length of an embedding")
    entries = _text_sizes(text, outputs) | {"projection_size": outputs}
    ends = {f"{name}_token_id": None for name in ("bos", "eos", "pad")}  # no token is read as such
    placed = _placed("vision_model", trunk.state_dict(), SIGLIP_VISION, "blocks.", TIMM_LAYER)
    for kind in ("weight", "bias"):
        parts = [placed.pop(f"vision_model.{name}.{kind}") for name in ("q", "kv")]
        placed[f"vision_model.head.attention.in_proj_{kind}"] = torch.cat(parts)
    position = "vision_model.embeddings.position_embedding.weight"
    weights = {
        **placed,
        position: placed[position].squeeze(0),
        **_placed("text_model", texts, TEXT, "transformer.resblocks.", OPEN_CLIP_LAYER),
        "logit_scale": model.logit_scale.detach().reshape(1),
        "logit_bias": _bias(model).reshape(1),
    }
    config = SiglipConfig(vision_config=vision, text_config=entries | ends)
    return Made(SiglipModel, config, weights)


def _bias(model: Module) -> Tensor:
    bias: Tensor = (
        model.logit_scale.detach() * 0 if model.logit_bias is None else model.logit_bias.detach()
    )
    return bias


def _check_text(text: Module) -> None:
    _expect(isinstance(text, open_clip().transformer.TextTransformer), "text tower")


def _sizes(transformer: Module, norm: Module, outputs: int) -> dict[str, Any]:
    """What the configuration of a tower of open_clip's says of its layers."""
    block = transformer.resblocks[0]
    kind = open_clip().transformer.ResidualAttentionBlock
    _expect(all(type(each) is kind for each in transformer.resblocks), "kind of layer")
    return {
        "hidden_size": transformer.width,
        "intermediate_size": block.mlp.c_fc.out_features,
        "num_hidden_layers": len(transformer.resblocks),
        "num_attention_heads": block.attn.num_heads,
        "layer_norm_eps": norm.eps,
        "hidden_act": _activation(block.mlp.gelu),
        "projection_dim": outputs,
    }


def _text_sizes(text: Module, outputs: int) -> dict[str, Any]:
    return _sizes(text.transformer, text.ln_final, outputs) | {
        "vocab_size": text.vocab_size,
        "max_position_embeddings": text.context_length,
    }


def _activation(module: nn.Module) -> str:
    """What transformers calls an activation."""
    if isinstance(module, open_clip().transformer.QuickGELU):
        return "quick_gelu"
    if isinstance(module, library("timm").layers.GELUTanh):
        return "gelu_pytorch_tanh"
    if isinstance(module, nn.GELU):
        return "gelu_pytorch_tanh" if module.approximate == "tanh" else "gelu"
    raise DiffersError(f"activation {type(module).__name__}")


def _square(size: Any) -> int:
    height, width = (size, size) if isinstance(size, int) else size
    _expect(height == width, "sides")
    return int(height)


def _expect(condition: bool, part: str) -> None:
    if not condition:
        raise DiffersError(part)


def _placed(
    root: str,
    tensors: Mapping[str, Tensor],
    names: Mapping[str, str],
    layers: str,
    of_layer: Mapping[str, str],
) -> dict[str, Tensor]:
    """Tensors of a tower under the names that transformers has for them.

    Args:
        root: what their names begin with there.
        tensors: of the tower.
        names: of what stands around the layers, whole or without their last part.
        layers: what the names of the layers' tensors begin with.
        of_layer: the names inside a layer, without their last part.

    Raises:
        DiffersError: a tensor has no place.
    """
    placed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.startswith(layers):
            number, _, inside = name.removeprefix(layers).partition(".")
            place = f"{root}.encoder.layers.{number}"
            if inside in FUSED:
                for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                    placed[f"{place}.self_attn.{part}_proj.{FUSED[inside]}"] = piece
                continue
            name, known = inside, of_layer
        else:
            place, known = root, names
        stem, _, kind = name.rpartition(".")
        if name in known:
            placed[f"{place}.{known[name]}"] = tensor
        elif stem in known:
            placed[f"{place}.{known[stem]}.{kind}"] = tensor
        else:
            raise DiffersError(name)
    return placed
