import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModel
from transformers.activations import GELUActivation, QuickGELUActivation

from pruning_mechanism import Mask, image_embeddings, load, prune
from pruning_mechanism.modeling import pruned_layers
from pruning_mechanism.modeling.modeling_pruned_clip import PrunedCLIPModel, PrunedCLIPVisionConfig
from pruning_mechanism.modeling.pruned_layers import InPlaceQuickGELU
from tests.conftest import tiny_clip
from tests.pruning_mechanism.conftest import random_mask, random_slim_mask

PIXELS = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def smaller() -> PrunedCLIPModel:
    dims = random_slim_mask(8)
    mask = Mask(*random_mask(8).tensors.values(), dims.qk_dims, dims.value_dims)
    mask.heads[1] = False
    mask.neurons[2] = False
    return prune(tiny_clip(), mask)


def test_automodel_gives_a_saved_tower_back(smaller, tmp_path):
    smaller.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path)
    assert type(again) is PrunedCLIPModel
    assert torch.equal(image_embeddings(again, PIXELS), image_embeddings(smaller, PIXELS))


def test_every_weight_of_every_kept_unit_learns(smaller):
    smaller.train()
    image_embeddings(smaller, PIXELS).square().sum().backward()
    for name, parameter in smaller.vision_model.named_parameters():
        assert parameter.requires_grad
        if parameter.numel():
            empty = "layers.1.self_attn" in name or "layers.2.mlp" in name
            if not empty or name.endswith(("out_proj.bias", "fc2.bias")):
                assert parameter.grad is not None, name


def test_half_precision_answers_nearly_as_float32(smaller):
    expected = image_embeddings(smaller, PIXELS)
    found = image_embeddings(smaller.to(torch.bfloat16), PIXELS.to(torch.bfloat16))
    assert found.dtype == torch.bfloat16
    assert torch.cosine_similarity(found.float(), expected).min() > 0.99


def test_it_exports(smaller):
    vision = smaller.vision_model.eval()
    program = torch.export.export(vision, (), {"pixel_values": PIXELS})
    found = program.module()(pixel_values=PIXELS).pooler_output
    expected = vision(pixel_values=PIXELS).pooler_output
    torch.testing.assert_close(found, expected)


def test_it_gives_the_hidden_states_that_the_dense_tower_gives(smaller):
    dense, pruned = (
        tower.vision_model(pixel_values=PIXELS, output_hidden_states=True).hidden_states
        for tower in (tiny_clip(), smaller)
    )  # None in the first releases of transformers 5
    assert [state.shape for state in pruned or ()] == [state.shape for state in dense or ()]


def test_a_configuration_survives_json(smaller, tmp_path):
    smaller.config.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path).vision_config
    assert again.heads_per_layer == smaller.config.vision_config.heads_per_layer
    assert again.num_attention_heads == 4


def test_widths_must_fit_the_number_of_layers():
    config = PrunedCLIPVisionConfig(
        hidden_size=16, num_attention_heads=4, num_hidden_layers=3, heads_per_layer=[1, 2]
    )
    with pytest.raises(ValueError, match="3 layers, but heads_per_layer has 2"):
        AutoModel.from_config(config)


def test_large_batches_of_odd_widths_give_the_same_answer(smaller, monkeypatch):
    with torch.no_grad():
        expected = image_embeddings(smaller, PIXELS)
        monkeypatch.setattr(pruned_layers, "LARGE_BATCH", 1)
        found = image_embeddings(smaller, PIXELS)
    assert any(width % 16 for width in smaller.config.vision_config.neurons_per_layer)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@given(st.integers(0, 1000), st.sampled_from([torch.float32, torch.bfloat16]))
def test_quick_gelu_in_place_is_quick_gelu_bit_for_bit(seed, dtype):
    values = 5 * torch.randn(7, 9, generator=torch.Generator().manual_seed(seed)).to(dtype)
    expected = QuickGELUActivation()(values)
    with torch.no_grad():
        assert torch.equal(InPlaceQuickGELU()(values.clone()), expected)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_quick_gelu_leaves_what_it_gets_to_whoever_holds_it(mode):
    values = torch.randn(4)
    before = values.clone()
    with mode():
        found = InPlaceQuickGELU()(values)
    assert torch.equal(values, before)
    assert found.data_ptr() != values.data_ptr()


def test_quick_gelu_leaves_what_it_gets_where_gradients_need_it():
    values = torch.randn(4, requires_grad=True)
    before = values.detach().clone()
    InPlaceQuickGELU()(values).sum().backward()
    assert torch.equal(values, before)
    assert values.grad is not None


def test_every_loaded_tower_computes_quick_gelu_in_place_dense_or_pruned(smaller, tmp_path):
    for model in (smaller, tiny_clip()):
        model.save_pretrained(tmp_path / type(model).__name__)
        again = load(tmp_path / type(model).__name__)
        layers = again.vision_model.encoder.layers
        assert all(type(layer.mlp.activation_fn) is InPlaceQuickGELU for layer in layers)
        with torch.no_grad():
            assert torch.equal(image_embeddings(again, PIXELS), image_embeddings(model, PIXELS))


def test_another_activation_stays(tmp_path):
    tiny_clip(hidden_act="gelu").save_pretrained(tmp_path)
    layers = load(tmp_path).vision_model.encoder.layers
    assert all(type(layer.mlp.activation_fn) is GELUActivation for layer in layers)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_both_attention_implementations_agree(smaller, attention):
    expected = image_embeddings(smaller, PIXELS)
    smaller.set_attn_implementation(attention)
    torch.testing.assert_close(image_embeddings(smaller, PIXELS), expected, atol=1e-5, rtol=1e-5)


def test_a_layer_with_heads_needs_a_size_of_each_kind():
    config = PrunedCLIPVisionConfig(
        hidden_size=16, num_attention_heads=4, num_hidden_layers=1, value_sizes=[0]
    )
    with pytest.raises(ValueError, match="must keep a query-key and a value dimension"):
        AutoModel.from_config(config)


@pytest.mark.parametrize("mask", [random_mask(3), random_slim_mask(3)])
def test_attentions_are_given_as_the_dense_tower_gives_them(mask):
    """Of as many heads as each layer has; a layer without heads has none to give."""
    models = tiny_clip(), prune(tiny_clip(), mask)
    for model in models:
        model.set_attn_implementation("eager")
    dense, smaller = (model.vision_model for model in models)
    asked = {"pixel_values": PIXELS, "output_attentions": True}
    heads = [count for count in mask.heads.sum(1).tolist() if count]
    if not dense(**asked).attentions:  # the first releases of transformers 5 give none
        heads = []
    found = smaller(**asked).attentions or ()
    assert [weights.shape for weights in found] == [(2, count, 17, 17) for count in heads]


def test_what_lost_all_its_units_lost_its_layer_norm(smaller):
    names = {name for name, _ in smaller.vision_model.named_parameters()}
    assert "encoder.layers.1.layer_norm1.weight" not in names
    assert "encoder.layers.2.layer_norm2.weight" not in names
    assert {
        "encoder.layers.1.layer_norm2.weight",
        "encoder.layers.1.self_attn.out_proj.bias",
    } <= names
