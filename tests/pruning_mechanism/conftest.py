"""A tiny model of each family, with what its towers take, and random masks."""

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AltCLIPConfig,
    AltCLIPModel,
    ChineseCLIPConfig,
    ChineseCLIPModel,
    CLIPConfig,
    CLIPModel,
    MetaClip2Config,
    MetaClip2Model,
    PreTrainedModel,
    SiglipConfig,
    SiglipModel,
)

from pruning_mechanism import Mask, Tower

WORDS, CONTEXT, END = 22, 16, 1
SHAPE = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}
IMAGE = {"image_size": 16, "patch_size": 4}
TEXT = {
    "vocab_size": WORDS,
    "max_position_embeddings": CONTEXT,
    "bos_token_id": 0,
    "eos_token_id": END,
    "pad_token_id": END,
}
SIZES = {"projection_dim": 8}
FAMILIES = {
    "clip": (CLIPModel, CLIPConfig, SIZES, SIZES),
    "metaclip_2": (MetaClip2Model, MetaClip2Config, SIZES, SIZES),
    "siglip": (SiglipModel, SiglipConfig, {}, {}),
    "altclip": (AltCLIPModel, AltCLIPConfig, SIZES, {"project_dim": 8, "hidden_dropout_prob": 0.0}),
    "chinese_clip": (ChineseCLIPModel, ChineseCLIPConfig, SIZES, {"hidden_dropout_prob": 0.0}),
}
TOWERS = [(name, "vision") for name in FAMILIES] + [
    (name, "text") for name in ("clip", "metaclip_2", "siglip")
]
"""Every tower that fits."""


def tiny_model(family: str, seed: int = 0, **vision) -> PreTrainedModel:
    """A model of 3 layers x 4 heads x 24 neurons a tower; weights large enough to matter."""
    model_class, config_class, image, text = FAMILIES[family]
    torch.manual_seed(seed)
    config = config_class(
        vision_config={**SHAPE, **IMAGE, **image, **vision},
        text_config={**SHAPE, **TEXT, **text},
        projection_dim=8,
    )
    model = model_class(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # zero at first, where a lost one would go unnoticed
                parameter.normal_(std=0.3)
            elif parameter.ndim == 2:
                parameter.normal_(std=parameter.shape[1] ** -0.5)
    return model


def tiny_inputs(tower: str, count: int = 3, seed: int = 0) -> Tensor | dict[str, Tensor]:
    """Pixels, or texts of different lengths, each with an end, padded with it."""
    generator = torch.Generator().manual_seed(seed)
    if tower == "vision":
        return torch.randn(count, 3, 16, 16, generator=generator)
    tokens = torch.randint(2, WORDS, (count, CONTEXT), generator=generator)
    lengths = torch.randint(2, CONTEXT, (count, 1), generator=generator)
    tokens[torch.arange(CONTEXT) >= lengths] = END
    return {"input_ids": tokens}


def embeddings(model: nn.Module, tower: str = "vision", seed: int = 0) -> Tensor:
    """What a tower makes of `tiny_inputs`."""
    with torch.no_grad():
        return Tower.of(model, tower).embeddings(tiny_inputs(tower, seed=seed))


def random_mask(seed: int, layers: int = 3, heads: int = 4, neurons: int = 24) -> Mask:
    generator = torch.Generator().manual_seed(seed)
    return Mask(
        torch.rand(layers, heads, generator=generator) < 0.6,
        torch.rand(layers, neurons, generator=generator) < 0.6,
    )


def random_slim_mask(seed: int, layers: int = 3, heads: int = 4, neurons: int = 24) -> Mask:
    """A mask of all four structures: head dimensions of 4 kept in part, two sublayers gone."""
    mask, generator = random_mask(seed, layers, heads, neurons), torch.Generator().manual_seed(seed)
    mask.heads[seed % layers], mask.neurons[seed // layers % layers] = False, False
    dims = torch.rand(2, layers, 4, generator=generator) < 0.5
    dims.scatter_(2, torch.randint(4, (2, layers, 1), generator=generator), True)
    return Mask(mask.heads, mask.neurons, *dims)


@pytest.fixture(scope="session")
def vit_b16() -> CLIPModel:
    """A CLIP with random weights and a ViT-B/16-shaped vision tower."""
    torch.manual_seed(0)
    config = CLIPConfig(
        vision_config={"patch_size": 16}, text_config={"num_hidden_layers": 1, "vocab_size": 100}
    )
    return CLIPModel(config).eval()
