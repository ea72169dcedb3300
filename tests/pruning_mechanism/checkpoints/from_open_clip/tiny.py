"""Tiny models of open_clip, one of each kind, in the layout of its models on the hub."""

import copy
import functools
import json
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch
from safetensors.torch import save_file
from timm.models import register_model
from timm.models.fastvit import fastvit_mci0
from timm.models.vision_transformer import vit_base_patch16_siglip_224
from transformers import BertConfig

from tests.conftest import tiny_processor

SIDE, EMBEDDING, WORDS = 32, 8, 49408
MOBILE = {"layers": (1, 1, 1, 1), "embed_dims": (8, 8, 16, 32)}
SIGLIP = {"img_size": SIDE, "patch_size": 8, "embed_dim": EMBEDDING, "depth": 2, "num_heads": 2}


def fastvit_of_tests(pretrained=False, **others):
    return fastvit_mci0(pretrained, **{**MOBILE, **others})


def siglip_of_tests(pretrained=False, **others):
    return vit_base_patch16_siglip_224(pretrained, **{**SIGLIP, **others})


fastvit_of_tests.__module__ = fastvit_mci0.__module__  # so that it counts as one of them
for made in (fastvit_of_tests, siglip_of_tests):
    if not timm.is_model(made.__name__):
        register_model(made)

VIT = {"image_size": SIDE, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8}
TEXT = {"context_length": 12, "vocab_size": WORDS, "width": 16, "heads": 2, "layers": 2}
BACKBONE = {"image_size": SIDE, "timm_pool": "avg", "timm_proj": None}
LATE = {"no_causal_mask": True, "pool_type": "last", "proj_bias": True, "vocab_size": 40}
TANH = {"act_kwargs": {"approximate": "tanh"}, "norm_kwargs": {"eps": 1e-6}}
OWN_WORDS = {"hf_tokenizer_name": "lies beside", "vocab_size": 40, "context_length": 16}
SIGLIP_TOWER = {**BACKBONE, "timm_model_name": "siglip_of_tests", "timm_pool": "map"}
CONVNEXT = {**BACKBONE, "timm_model_name": "test_convnext", "timm_pool": ""}
CONFIGS: dict[str, dict[str, Any]] = {
    "CLIP": {"vision_cfg": VIT, "text_cfg": TEXT},
    "CLIP of OpenAI": {"vision_cfg": VIT, "text_cfg": TEXT, "quick_gelu": True},
    "MetaCLIP 2": {"vision_cfg": VIT, "text_cfg": {**TEXT, **OWN_WORDS, "pool_type": "eos",
        "eos_id": 1}},
    "SigLIP": {"vision_cfg": {**SIGLIP_TOWER, "timm_proj": "none"}, "init_logit_bias": -10.0,
        "text_cfg": {**TEXT, **OWN_WORDS, **LATE, **TANH}, "custom_text": True},
    "SigLIP without a bias": {"vision_cfg": {**SIGLIP_TOWER, "timm_proj": "none"},
        "text_cfg": {**TEXT, **OWN_WORDS, **LATE, "proj_bias": False}, "custom_text": True},
    "MobileCLIP": {"vision_cfg": {**BACKBONE, "timm_model_name": "fastvit_of_tests"},
        "text_cfg": {**TEXT, "no_causal_mask": True}, "custom_text": True},
    "CLIPA": {"vision_cfg": {**VIT, "no_ln_pre": True, "pool_type": "avg",
        "final_ln_after_pool": True}, "text_cfg": {**TEXT, "pool_type": "last",
        "no_causal_mask": True}},
    "layer scale": {"vision_cfg": {**VIT, "ls_init_value": 0.1}, "text_cfg": TEXT},
    "ResNet": {"vision_cfg": {"image_size": SIDE, "layers": [1, 1, 1, 1], "width": 8,
        "patch_size": None}, "text_cfg": TEXT},
    "CoCa": {"vision_cfg": {**VIT, "attentional_pool": True, "attn_pooler_heads": 2,
        "attn_pooler_queries": 4, "output_tokens": True}, "custom_text": True,
        "text_cfg": {**TEXT, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {**TEXT, "width": EMBEDDING, "attn_pooler_heads": 2}},
    "ConvNeXt": {"vision_cfg": {**CONVNEXT, "timm_proj": "linear"}, "text_cfg": TEXT},
    "ConvNeXt with an MLP": {"vision_cfg": {**CONVNEXT, "timm_proj": "mlp"}, "text_cfg": TEXT},
    "BERT": {"vision_cfg": VIT, "text_cfg": {"hf_model_name": "lies beside",
        "hf_pooler_type": "mean_pooler", "hf_tokenizer_name": "lies beside",
        "context_length": 16}},
}  # fmt: skip


def config_of(kind: str, beside: Path) -> dict[str, Any]:
    """A configuration; what it names on the hub lies in a directory."""
    entries = {"embed_dim": EMBEDDING, **copy.deepcopy(CONFIGS[kind])}
    if "hf_model_name" in entries["text_cfg"]:
        bert = BertConfig(
            vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=16, pad_token_id=2,
        )  # fmt: skip
        bert.save_pretrained(beside)
        entries["text_cfg"]["hf_model_name"] = str(beside)
    return entries


def trained(model: torch.nn.Module) -> torch.nn.Module:
    """A model whose weights, biases and statistics all matter."""
    random = torch.Generator().manual_seed(1)
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=random))
        elif tensor.is_floating_point() and "token_embedding" not in name:
            tensor.add_(0.1 * torch.randn(tensor.shape, generator=random))
    return model.eval()


@functools.cache
def written(kind: str, directory: Path) -> Path:
    """A model in the layout of the hub, in a directory."""
    directory.mkdir(parents=True)
    entries = config_of(kind, directory)
    tokenizer = tiny_processor().tokenizer
    if kind == "BERT":  # whose texts don't end in padding
        tokenizer.pad_token = "<unk>"
    tokenizer.save_pretrained(directory)
    (directory / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": entries, "preprocess_cfg": {"mean": [0.5, 0.4, 0.3]}})
    )
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = trained(open_clip.create_model(f"local-dir:{directory}", pretrained_text=False))
    weights = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    save_file(weights, directory / "open_clip_model.safetensors")
    return directory


def theirs(directory: Path) -> torch.nn.Module:
    """The model as open_clip loads it, whose image tower answers with embeddings alone."""
    model = open_clip.create_model(f"local-dir:{directory}").eval()
    model.visual.output_tokens = False
    return model
