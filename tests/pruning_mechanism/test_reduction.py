"""Reduced towers: the dense tower where nothing is left out, and the same from disk."""

import os

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pruning_mechanism import (
    Mask,
    Reduction,
    Tower,
    TowerError,
    align,
    image_embeddings,
    load,
    macs,
    pooled_only,
    prune,
    reduce,
    text_embeddings,
)
from pruning_mechanism.heads import rotate
from pruning_mechanism.modeling.aligned_projection import AlignedProjection
from tests.conftest import tiny_clip, tiny_processor
from tests.fresh import python
from tests.lanes import sweep

PIXELS = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
TEXTS = torch.tensor([[0, 5, 6, 7, 8, 9, 1], [0, 5, 8, 6, 1, 1, 1]])
NOTHING = {
    "grid": Reduction(kept_patches=16, patch_rule="grid"),
    "random": Reduction(kept_patches=16, patch_rule="random", patch_seed=1),
    "saliency": Reduction(kept_patches=16, patch_rule="saliency"),
    "merging": Reduction(merged_per_layer=(0, 0, 0)),
    "ranking": Reduction(ranked_per_layer=(0, 0, 0), ranker="attention"),
    "exit": Reduction(layers=3),
    "resolution": Reduction(image_size=16),
    "resolutions": Reduction(
        resolutions=(8, 16), resolution_bounds=(-1.0,), resolution_shares=(0.0, 1.0)
    ),
}
SMALLER_IMAGES = ("resolution", "patch size")
"""Rules that make a tower take images of half the side."""
SOMETHING = {
    "grid": Reduction(kept_patches=9, patch_rule="grid"),
    "random": Reduction(kept_patches=9, patch_rule="random", patch_seed=1),
    "saliency": Reduction(kept_patches=9, patch_rule="saliency"),
    "merging": Reduction(merged_per_layer=(3, 2, 1)),
    "ranking": Reduction(ranked_per_layer=(10, 0, 5), ranker="attention"),
    "learned": Reduction(ranked_per_layer=(10, 0, 5), ranker="learned"),
    "exit": Reduction(layers=2),
    "resolution": Reduction(image_size=8),
    "patch size": Reduction(patch_size=2),
    "resolutions": Reduction(
        resolutions=(8, 16), resolution_bounds=(0.8,), resolution_shares=(0.5, 0.5)
    ),
}


def pruned():
    """A tower with a layer without heads and another without neurons."""
    mask = Mask.dense(tiny_clip().config)
    mask.heads[1], mask.neurons[2] = False, False
    mask.heads[0, 1], mask.neurons[0, 5:] = False, False
    return prune(tiny_clip(), mask)


def chain():
    """A tower to which everything was done that goes together."""
    made = reduce(pruned(), Reduction(merged_per_layer=(3, 2, 1)))
    made = reduce(made, Reduction(ranked_per_layer=(11, 0, 0), ranker="learned"))
    made = reduce(made, Reduction(kept_patches=13, patch_rule="grid", layers=2))
    made = reduce(made, Reduction(ranked_share_per_layer=(0.5, 0.5)))
    return align(made, AlignedProjection(32, 5, 8))


def pixels_of(name):
    """Images as the tower takes them to which that was done."""
    return PIXELS[..., :8, :8] if name in SMALLER_IMAGES else PIXELS


@torch.no_grad()
def embeddings(model, pixels=PIXELS):
    return image_embeddings(model, pixels)


def same(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("make", [tiny_clip, pruned])
@pytest.mark.parametrize("name", NOTHING)
def test_a_reduction_that_leaves_nothing_out_changes_nothing(name, make):
    model = make()
    reduced = reduce(model, NOTHING[name])
    same(embeddings(reduced), embeddings(model))
    assert macs(reduced) == macs(model)


@pytest.mark.parametrize("name", sorted(set(SOMETHING) - set(SMALLER_IMAGES)))
def test_an_embedding_does_not_depend_on_the_batch(name):
    reduced = reduce(tiny_clip(), SOMETHING[name])
    alone = torch.cat([embeddings(reduced, each[None]) for each in PIXELS])
    same(alone, embeddings(reduced))
    assert not torch.allclose(alone, embeddings(tiny_clip()), atol=1e-3)


@pytest.mark.parametrize(
    "name", sweep(SOMETHING, ("random", "merging", "learned", "exit", "patch size", "resolutions"))
)
def test_a_reduced_tower_is_the_same_from_disk(name, tmp_path):
    reduced = reduce(pruned(), SOMETHING[name])
    pixels = pixels_of(name)
    reduced.save_pretrained(tmp_path)
    assert torch.equal(embeddings(load(tmp_path), pixels), embeddings(reduced, pixels))


READER = """
import sys, torch
from transformers import AutoModel
model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True).eval()
pixels, texts = torch.load(sys.argv[2])
with torch.no_grad():
    images = model.get_image_features(pixel_values=pixels).pooler_output
    torch.save([images, model.get_text_features(input_ids=texts).pooler_output], sys.argv[3])
"""


def test_a_chain_of_rules_loads_where_the_project_is_not_importable(tmp_path):
    model = chain()
    model.save_pretrained(tmp_path / "chain")
    tiny_processor().save_pretrained(tmp_path / "chain")
    torch.save([PIXELS, TEXTS], tmp_path / "inputs.pt")
    files = [tmp_path / name for name in ("chain", "inputs.pt", "found.pt")]
    environment = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    python("-c", READER, *files, cwd=tmp_path, env=environment)
    images, texts = torch.load(tmp_path / "found.pt")
    same(images, embeddings(model))
    with torch.no_grad():
        same(texts, text_embeddings(model, {"input_ids": TEXTS}))


@pytest.mark.parametrize("name", sweep(["grid", "merging", "ranking", "exit"], ["grid"]))
def test_static_rules_export(name):
    model = reduce(tiny_clip(), SOMETHING[name])
    exported = torch.export.export(model.vision_model, (PIXELS,)).module()
    with torch.no_grad():
        same(exported(PIXELS).pooler_output, model.vision_model(PIXELS).pooler_output)


def test_a_chain_is_trainable_and_moves_to_half_precision():
    model = chain()
    image_embeddings(model, PIXELS).sum().backward()
    missing = {
        name
        for name, each in model.vision_model.named_parameters()
        if each.grad is None and "ranker" not in name  # places are chosen, not weighed
    }
    assert not any("mlp" in name or "embedding" in name for name in missing)
    half = embeddings(model.to(torch.bfloat16), PIXELS.bfloat16())
    assert half.dtype == torch.bfloat16
    assert half.isfinite().all()


@pytest.mark.parametrize("make", [tiny_clip, chain])
def test_models_that_are_read_only_share_their_tensors(make):
    model, merged = make(), Reduction(merged_per_layer=(2,) * (2 if make is chain else 3))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for shares, made in (
        (True, pooled_only(model)),
        (True, reduce(model, merged, share=True)),
        (False, reduce(model, merged)),
    ):
        found = made.state_dict()
        for name, tensor in model.vision_model.state_dict().items():
            if not tensor.numel():
                continue
            assert (found[f"vision_model.{name}"].data_ptr() == tensor.data_ptr()) == shares
        assert set(model.state_dict()) == set(before)
    same(embeddings(reduce(model, merged, share=True)), embeddings(reduce(model, merged)))


def test_an_exit_reads_the_dense_stream_after_its_layer():
    dense, early = tiny_clip(), reduce(tiny_clip(), Reduction(layers=2))
    tower = Tower.of(dense)
    with torch.no_grad():
        hidden = tower.embed(PIXELS)
        for part in tower.sublayers[:4]:
            hidden = part(hidden)
        same(embeddings(early), tower.project(hidden))
    assert macs(early).fraction == pytest.approx(2 / 3)


def test_an_exit_keeps_the_entries_of_its_layers():
    own = reduce(reduce(pruned(), SOMETHING["merging"]), SOMETHING["exit"]).config.vision_config
    assert own.heads_per_layer == [3, 0]
    assert own.merged_per_layer == [3, 2]
    assert (own.num_hidden_layers, own.dense_layers) == (2, 3)


def test_smaller_images_have_the_positions_that_transformers_interpolates():
    small = PIXELS[..., :8, :8]
    dense = tiny_clip()
    with torch.no_grad():
        expected = dense.get_image_features(pixel_values=small, interpolate_pos_encoding=True)
    same(embeddings(reduce(dense, Reduction(image_size=8)), small), expected.pooler_output)


def test_an_aligned_projection_that_repeats_the_old_one_changes_nothing():
    model = tiny_clip()
    projection = AlignedProjection(32, 4, 8)
    with torch.no_grad():
        projection.linear.weight.zero_()
        projection.linear.bias.zero_()
        projection.linear.weight[:, :16] = model.visual_projection.weight
    same(embeddings(align(model, projection)), embeddings(model))


def test_pooled_features_are_the_class_token_and_the_mean_of_patches_by_size():
    reduced = reduce(tiny_clip(), SOMETHING["merging"])
    root = Tower.of(pooled_only(reduced)).root
    with torch.no_grad():
        hidden, sizes = Tower.of(reduced).embed(PIXELS), None
        for index in range(3):
            hidden, sizes = root.through(index, hidden, sizes)
        normed = root.post_layernorm(hidden)
    assert torch.equal(sizes.sum(1), torch.full((3,), 17.0))
    mean = (normed[:, 1:] * sizes[:, 1:, None]).sum(1) / 16
    same(embeddings(pooled_only(reduced)), torch.cat([normed[:, 0], mean], dim=1))


def test_the_same_tokens_merge_whatever_coordinates_the_heads_are_written_in():
    turned, generator = tiny_clip(), torch.Generator().manual_seed(0)
    for part in Tower.of(turned).sublayers[::2]:
        basis = torch.linalg.qr(torch.randn(4, 4, 4, generator=generator).double()).Q
        rotate(part, basis, basis, basis)
    merged = [reduce(model, SOMETHING["merging"]) for model in (tiny_clip(), turned)]
    same(*(embeddings(model) for model in merged))


@pytest.mark.parametrize("name", ["grid", "merging", "ranking", "exit"])
def test_macs_are_those_of_the_matrix_products_that_are_computed(name):
    model = reduce(pruned(), SOMETHING[name])
    model.set_attn_implementation("eager")
    own = model.config.vision_config
    model.requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        image_embeddings(model, PIXELS[:1])
    counted = counter.get_total_flops() // 2
    ranked = [layer for layer, keep in enumerate(own.ranked_per_layer or []) if keep]
    sizes = {0: 17, 2: 12}  # tokens that enter the layers that rank, a row of logits each
    logits = sum(own.heads_per_layer[each] * 4 * sizes[each] for each in ranked)
    assert counted - logits == macs(model).tower


@pytest.mark.parametrize(
    ("reduction", "said"),
    [
        (Reduction(layers=4), "3 layers"),
        (Reduction(layers=0), "3 layers"),
        (Reduction(merged_per_layer=(1, 2)), "3 numbers"),
        (Reduction(image_size=10), "multiple"),
        (Reduction(patch_size=4), "are 4 pixels wide: take fewer"),
        (Reduction(patch_size=0), "from 1 on"),
        (Reduction(kept_patches=17, patch_rule="grid"), "16"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(reduction, said):
    with pytest.raises(TowerError, match=said) as caught:
        reduce(tiny_clip(), reduction)
    assert "\n" not in str(caught.value)
