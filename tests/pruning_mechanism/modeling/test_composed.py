"""Composed CLIPs: the encoders' own answers, on disk and by transformers alone."""

import json
import math

import pytest
import timm
import torch
from transformers import AutoModel, BertConfig, BertModel, CLIPImageProcessor

from pruning_mechanism import (
    AlignedProjection,
    TowerError,
    align,
    image_embeddings,
    load,
    macs,
    parameters,
    pooled_only,
    save,
    text_embeddings,
    tower_of,
)
from pruning_mechanism.modeling.composed_encoders import attend_by_sigmoid
from pruning_mechanism.modeling.modeling_composed_clip import (
    ComposedClipConfig,
    ComposedClipModel,
    ComposedClipTextConfig,
    ComposedClipVisionConfig,
    ComposedClipVisionModel,
)

SIDE = 32
VISION = {
    "test_resnet": {"arguments": {}, "hidden_size": 96},
    "test_vit": {"arguments": {"img_size": SIDE}, "hidden_size": 64},
    "test_vit_relpos": {"arguments": {"img_size": SIDE}, "hidden_size": 96},
}
"""One with batch norms, a plain transformer, one with buffers that no file holds."""
BERT = BertConfig(
    vocab_size=40,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=20,
)


def vision(name: str, **entries) -> ComposedClipVisionConfig:
    given = {"image_size": SIDE, "projection_dim": 8, **VISION[name], **entries}
    return ComposedClipVisionConfig(architecture=name, **given)


def whole(pooling: str = "mean") -> ComposedClipModel:
    text = ComposedClipTextConfig(
        encoder=BERT.to_dict(),
        pooling=pooling,
        hidden_size=16,
        projection_dim=8,
        projected=True,
        vocab_size=40,
        max_position_embeddings=20,
    )
    config = ComposedClipConfig(
        vision_config=vision("test_resnet").to_dict(), text_config=text.to_dict(), projection_dim=8
    )
    torch.manual_seed(0)
    return ComposedClipModel(config).eval()


def processor() -> CLIPImageProcessor:
    square = {"height": SIDE, "width": SIDE}
    return CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=square)


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name in VISION if timm.is_model(name)])
def test_it_answers_as_timm_and_so_it_does_from_disk(name, pixels, tmp_path):
    model = ComposedClipVisionModel(vision(name)).eval()
    own = timm.create_model(name, num_classes=0, **VISION[name]["arguments"]).eval()
    own.load_state_dict(model.vision_model.encoder.state_dict())
    wanted = model.visual_projection(own(pixels))
    save(model, tmp_path, processor())
    torch.testing.assert_close(image_embeddings(load(tmp_path), pixels), wanted)
    for trusted in (False, True):  # this project's classes, and the code in the directory
        loaded = AutoModel.from_pretrained(tmp_path, trust_remote_code=trusted).eval()
        torch.testing.assert_close(loaded(pixels).image_embeds, wanted)


@torch.no_grad()
@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
def test_texts_are_pooled_as_asked_whatever_the_padding(pooling, tmp_path):
    model = whole(pooling)
    bert = BertModel(BERT, add_pooling_layer=False).eval()
    bert.load_state_dict(model.text_model.encoder.state_dict())
    save(model, tmp_path, processor())
    model = load(tmp_path)
    lengths = (5, 9)
    tokens, mask = torch.randint(1, 40, (2, 9)), torch.zeros(2, 9, dtype=torch.long)
    for row, length in enumerate(lengths):
        mask[row, :length] = 1
    found = text_embeddings(model, {"input_ids": tokens, "attention_mask": mask})
    for row, length in enumerate(lengths):
        hidden = bert(input_ids=tokens[row : row + 1, :length])[0][0]
        pooled = {"mean": hidden.mean(0), "first": hidden[0], "last": hidden[-1]}[pooling]
        torch.testing.assert_close(found[row], model.text_projection(pooled), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_whole_one_gives_the_logits_of_its_own_embeddings(pixels):
    model, tokens = whole(), torch.randint(1, 40, (2, 6))
    made = model(input_ids=tokens, pixel_values=pixels)
    images, texts = (
        torch.nn.functional.normalize(found, dim=-1)
        for found in (
            image_embeddings(model, pixels),
            text_embeddings(model, {"input_ids": tokens}),
        )
    )
    torch.testing.assert_close(
        made.logits_per_image, math.exp(2.6592) * images @ texts.T, atol=1e-4, rtol=1e-4
    )


@torch.no_grad()
@pytest.mark.parametrize(
    "make", [whole, lambda: ComposedClipVisionModel(vision("test_vit")).eval()]
)
def test_a_projection_is_put_behind_the_features_and_nothing_else_changes(make, pixels):
    model = make()
    features = tower_of(pooled_only(model)).embeddings(pixels)
    torch.testing.assert_close(features, model.vision_model(pixels).pooler_output)
    projection = AlignedProjection(features.shape[1], 6, 8)
    aligned = align(model, projection)
    torch.testing.assert_close(image_embeddings(aligned, pixels), projection(features))
    assert tower_of(aligned).config.random_features == 6
    with pytest.raises(TowerError, match="but the encoder's features have"):
        align(model, AlignedProjection(7, 0, 8))


@torch.no_grad()
def test_sigmoid_attention_is_its_formula():
    """σ(qkᵀ/√h − log n) v, one head and one query at a time (arXiv 2409.04431)."""
    plain = timm.create_model("test_vit", num_classes=0, img_size=SIDE).eval()
    attention = plain.blocks[0].attn
    x = torch.randn(1, 5, 64, generator=torch.Generator().manual_seed(0))
    heads, size = attention.num_heads, 64 // attention.num_heads
    q, k, v = attention.qkv(x)[0].double().reshape(5, 3, heads, size).unbind(1)
    wanted = torch.zeros(5, heads, size, dtype=torch.float64)
    for head in range(heads):
        for query in range(5):
            for key in range(5):
                logit = q[query, head] @ k[key, head] / math.sqrt(size) - math.log(5)
                wanted[query, head] += torch.sigmoid(logit) * v[key, head]
    before = attention(x)
    attend_by_sigmoid(plain)
    after = attention(x)
    torch.testing.assert_close(after[0], attention.proj(wanted.flatten(1).float()))
    assert not torch.allclose(before, after)


def test_what_it_costs_is_a_transformers_by_the_papers_formula():
    """Of a plain transformer, MACs of heads and neurons are those of arXiv 2204.09656."""
    model = ComposedClipVisionModel(vision("test_vit"))
    encoder = model.vision_model.encoder
    n, d, h = 5, 64, 64 // encoder.blocks[0].attn.num_heads
    heads = encoder.blocks[0].attn.num_heads
    neurons = encoder.blocks[0].mlp.fc1.out_features
    layer = heads * (3 * n * d * h + 2 * n**2 * h + n * h * d) + neurons * 2 * n * d
    patches = 4 * 3 * 16**2 * d
    assert macs(model).encoder == len(encoder.blocks) * layer + patches
    assert macs(model).tower == macs(model).encoder + d * 8
    assert parameters(model) == sum(weights.numel() for weights in model.parameters())


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"architecture": "hf-hub:timm/resnet50"}, "architecture is the name of a model of timm"),
        ({"architecture": 3}, "architecture is the name of a model of timm"),
        ({"arguments": {"pretrained": True}}, "arguments can't hold 'pretrained'"),
        ({"arguments": {"checkpoint_path": "x"}}, "arguments can't hold 'checkpoint_path'"),
        ({"arguments": [1]}, "arguments takes names and values"),
        ({"library": "os"}, "library is one of"),
        ({"image_size": 0}, "image_size must be a whole number"),
        ({"random_features": -1}, "random_features must be a whole number"),
        ({"hidden_size": 12}, "not of the sizes that its config.json says"),
    ],
)
def test_a_configuration_that_was_changed_is_refused_in_one_line(entries, said, tmp_path):
    save(ComposedClipVisionModel(vision("test_resnet")), tmp_path, processor())
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))
    with pytest.raises(TowerError, match=said):
        load(tmp_path)
