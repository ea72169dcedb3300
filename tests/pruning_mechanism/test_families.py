"""Every family's towers are seen, masked, pruned, saved and loaded in the same way."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModel, CLIPConfig, Siglip2Config, SiglipVisionModel

from pruning_mechanism import Tower, TowerError, image_embeddings, load, masked, prune
from pruning_mechanism.families import FAMILIES, family_of, pruned_class
from tests.lanes import examples
from tests.pruning_mechanism.conftest import (
    TOWERS,
    embeddings,
    random_mask,
    random_slim_mask,
    tiny_inputs,
    tiny_model,
)

VISION = [family for family, tower in TOWERS if tower == "vision"]
each_tower = pytest.mark.parametrize(("family", "tower"), TOWERS)


@each_tower
def test_sublayers_run_one_after_another_are_the_encoder(family, tower):
    tower, inputs = Tower.of(tiny_model(family), tower), tiny_inputs(tower)
    with torch.no_grad():
        hidden = tower.embed(inputs)
        for sublayer in tower.sublayers:
            hidden = sublayer(hidden)
        found = tower.project(hidden, inputs)
    torch.testing.assert_close(found, tower.embeddings(inputs), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", VISION)
def test_embeddings_are_those_of_transformers(family):
    model, pixels = tiny_model(family), tiny_inputs("vision")
    with torch.no_grad():
        assert torch.equal(
            image_embeddings(model, pixels),
            model.get_image_features(pixel_values=pixels).pooler_output,
        )


@each_tower
@settings(max_examples=examples(3, 10))
@given(seed=st.integers(0, 10**6))
def test_pruned_answers_as_the_masked_dense_tower(family, tower, seed):
    model, mask = tiny_model(family, seed), random_slim_mask(seed)
    with masked(model, mask, tower):
        expected = embeddings(model, tower)
    assert not torch.allclose(embeddings(model, tower), expected, atol=1e-3)
    found = embeddings(prune(model, mask, tower), tower)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@each_tower
def test_save_then_load_gives_the_same_model(family, tower, tmp_path):
    smaller = prune(tiny_model(family), random_slim_mask(1), tower)
    smaller.save_pretrained(tmp_path)
    for again in (load(tmp_path), AutoModel.from_pretrained(tmp_path).eval()):
        assert type(again) is pruned_class(smaller.config) is type(smaller)
        assert torch.equal(embeddings(again, tower), embeddings(smaller, tower))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@each_tower
def test_both_attention_implementations_agree(family, tower, attention):
    smaller, inputs = prune(tiny_model(family), random_slim_mask(2), tower), tiny_inputs(tower)
    if attention == "sdpa" and not smaller._supports_sdpa:
        pytest.skip("not in this release of transformers")
    expected = embeddings(smaller, tower)
    smaller.set_attn_implementation(attention)
    seen = Tower.of(smaller, tower)
    with torch.no_grad():
        hidden = seen.embed(inputs)
        for sublayer in seen.sublayers:
            hidden = sublayer(hidden)
        for found in (seen.embeddings(inputs), seen.project(hidden, inputs)):
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_siglip_vision_tower_alone_is_pruned_the_same_way(tmp_path):
    whole, mask = tiny_model("siglip"), random_mask(3)
    whole.save_pretrained(tmp_path / "whole")
    alone = SiglipVisionModel.from_pretrained(tmp_path / "whole").eval()
    smaller = prune(alone, mask)
    assert torch.equal(embeddings(smaller), embeddings(prune(whole, mask)))
    smaller.save_pretrained(tmp_path / "alone")
    assert torch.equal(embeddings(load(tmp_path / "alone")), embeddings(smaller))


def test_a_siglip_without_pooling_head_is_refused():
    with pytest.raises(TowerError, match="has no head"):
        Tower.of(tiny_model("siglip", vision_use_head=False))


def test_a_tower_without_its_projection_is_refused():
    with pytest.raises(TowerError, match="has no visual_projection"):
        Tower.of(tiny_model("clip").vision_model)


def test_a_model_of_another_family_is_told_which_fit(tmp_path):
    Siglip2Config().save_pretrained(tmp_path)
    with pytest.raises(TowerError, match=r"naflex.*fixed resolution") as caught:
        load(tmp_path)
    assert all(family.name in str(caught.value) for family in FAMILIES)
    assert "\n" not in str(caught.value)


def test_a_tower_belongs_to_the_family_of_its_whole():
    config = tiny_model("siglip").config
    assert family_of(config) is family_of(config.vision_config) is family_of(config.text_config)


@pytest.mark.parametrize(
    ("hidden", "heads", "neurons", "patch"), [(1024, 16, 4096, 14), (1280, 16, 5120, 14)]
)
def test_large_towers_are_pruned_as_small_ones(hidden, heads, neurons, patch):
    shape = {
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "intermediate_size": neurons,
        "num_hidden_layers": 2,
    }
    config = CLIPConfig(
        vision_config={**shape, "patch_size": patch}, text_config={"num_hidden_layers": 1}
    )
    mask = random_mask(4, 2, heads, neurons)
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    smaller = prune(model, mask)
    with torch.device("meta"):
        found = image_embeddings(smaller, torch.empty(1, 3, 224, 224))
    assert found.shape == (1, 512)
    assert smaller.vision_model.encoder.layers[1].mlp.fc1.weight.shape == (
        mask.neurons[1].sum(),
        hidden,
    )
