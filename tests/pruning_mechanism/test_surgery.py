import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPVisionModelWithProjection

from pruning_mechanism import Mask, TowerError, image_embeddings, masked, prune, sublayers
from tests.conftest import tiny_clip
from tests.lanes import examples, sweep
from tests.pruning_mechanism.conftest import random_mask, random_slim_mask

PIXELS = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def embeddings(model, pixels=PIXELS):
    with torch.no_grad():
        return image_embeddings(model, pixels)


@settings(max_examples=examples(10, 30), deadline=None)
@given(seed=st.integers(0, 10**6))
def test_pruned_answers_as_the_masked_dense_tower(seed):
    model, mask = tiny_clip(seed), random_mask(seed)
    with masked(model, mask):
        expected = embeddings(model)
    torch.testing.assert_close(embeddings(prune(model, mask)), expected, atol=1e-5, rtol=1e-5)


@settings(max_examples=examples(10, 30), deadline=None)
@given(seed=st.integers(0, 10**6), only=st.sampled_from(["qk_dims", "value_dims"]))
def test_head_dimensions_of_one_kind_alone_may_go(seed, only):
    model, slim = tiny_clip(seed), random_slim_mask(seed)
    mask = Mask(slim.heads, slim.neurons, **{only: getattr(slim, only)})
    with masked(model, mask):
        expected = embeddings(model)
    torch.testing.assert_close(embeddings(prune(model, mask)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("only", ["qk_dims", "value_dims"])
def test_losing_a_head_dimension_is_zeroing_what_computes_it(clip, only):
    dense, by_hand = Mask.dense(clip.config), copy.deepcopy(clip)
    dims = torch.tensor([[True, False, True, False]]).expand(3, 4)
    for layer in by_hand.vision_model.encoder.layers:
        attention = layer.self_attn
        projection = attention.q_proj if only == "qk_dims" else attention.v_proj
        for values in (projection.weight, projection.bias):
            values.data.view(4, 4, -1)[:, ~dims[0]] = 0
    mask = Mask(dense.heads, dense.neurons, **{only: dims})
    assert not torch.allclose(embeddings(clip), embeddings(by_hand), atol=1e-3)
    with masked(clip, mask):
        torch.testing.assert_close(embeddings(clip), embeddings(by_hand), atol=1e-5, rtol=1e-5)


def test_pruned_projections_have_the_sizes_that_the_mask_keeps(clip):
    dense = Mask.dense(clip.config)
    heads, dims = dense.heads.clone(), torch.ones(2, 3, 4, dtype=torch.bool)
    heads[1, :2] = False
    dims[0, :, 1:], dims[1, :, 3:] = False, False
    smaller = prune(clip, Mask(heads, dense.neurons, *dims))
    attention = smaller.vision_model.encoder.layers[1].self_attn
    assert attention.q_proj.weight.shape == attention.k_proj.weight.shape == (2 * 1, 16)
    assert attention.v_proj.weight.shape == (2 * 3, 16)
    assert attention.out_proj.weight.shape == (16, 2 * 3)
    assert attention.scale == 4**-0.5
    assert sublayers(smaller)[2].unit_width == 3
    assert sublayers(smaller)[2].units == 2
    assert smaller.config.vision_config.query_key_sizes == [1, 1, 1]
    assert smaller.config.vision_config.value_sizes == [3, 3, 3]


def test_a_pruned_tower_is_not_masked(clip):
    mask = random_mask(7)
    with pytest.raises(TowerError, match="pruned already"), masked(prune(clip, mask), mask):
        pass


def test_masking_is_zeroing_the_output_projections_columns(clip):
    mask, by_hand = random_mask(3), copy.deepcopy(clip)
    for sublayer in sublayers(by_hand):
        keep = getattr(mask, sublayer.kind)[sublayer.layer]
        sublayer.output.weight.data *= keep.repeat_interleave(sublayer.unit_width)
    with masked(clip, mask):
        torch.testing.assert_close(embeddings(clip), embeddings(by_hand))


def test_the_mask_ends_with_the_context(clip):
    before = embeddings(clip)
    with masked(clip, random_mask(4)):
        assert not torch.allclose(embeddings(clip), before)
    assert torch.equal(embeddings(clip), before)


def test_a_layer_may_lose_all_heads_or_all_neurons(clip):
    dense = Mask.dense(clip.config)
    heads, neurons = dense.heads.clone(), dense.neurons.clone()
    heads[0], heads[2], neurons[1], neurons[2] = False, False, False, False
    mask = Mask(heads, neurons)
    with masked(clip, mask):
        expected = embeddings(clip)
    smaller = prune(clip, mask)
    torch.testing.assert_close(embeddings(smaller), expected, atol=1e-5, rtol=1e-5)
    assert smaller.vision_model.encoder.layers[0].self_attn.q_proj.weight.shape == (0, 16)


def test_pruning_nothing_changes_nothing(clip):
    assert torch.equal(embeddings(prune(clip, Mask.dense(clip.config))), embeddings(clip))


def test_the_dense_model_stays_as_it_is(clip):
    before = {name: tensor.clone() for name, tensor in clip.state_dict().items()}
    smaller = prune(clip, random_mask(5))
    with torch.no_grad():
        for parameter in smaller.parameters():
            parameter.zero_()
    assert all(torch.equal(before[name], tensor) for name, tensor in clip.state_dict().items())


def test_a_vision_tower_alone_is_pruned_the_same_way(clip, tmp_path):
    clip.save_pretrained(tmp_path)
    config = clip.config.vision_config
    vision = CLIPVisionModelWithProjection.from_pretrained(tmp_path, config=config).eval()
    mask = random_mask(6)
    smaller = prune(vision, mask)
    with torch.no_grad():
        found = smaller(pixel_values=PIXELS).image_embeds
    torch.testing.assert_close(found, embeddings(prune(clip, mask)), atol=1e-6, rtol=1e-5)


def test_a_pruned_tower_is_not_pruned_again(clip):
    mask = random_mask(7)
    with pytest.raises(TowerError, match="pruned already"):
        prune(prune(clip, mask), mask)


def test_sublayers_run_one_after_another_are_the_encoder(clip):
    from pruning_mechanism import embed, project

    with torch.no_grad():
        hidden = embed(clip, PIXELS)
        for sublayer in sublayers(clip):
            hidden = sublayer(hidden)
        torch.testing.assert_close(project(clip, hidden), embeddings(clip), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", sweep(["0.65", "0.40", "0.25"], ["0.40"]))
def test_published_masks_on_a_vit_b16(shared, vit_b16, name):
    mask = Mask.load(shared / "masks" / f"vit-b16-mac{name}.safetensors")
    pixels = torch.randn(2, 3, 224, 224)
    with masked(vit_b16, mask):
        expected = embeddings(vit_b16, pixels)
    found = embeddings(prune(vit_b16, mask), pixels)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
