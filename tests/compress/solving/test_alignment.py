"""Alignment of a tower: what its projection becomes, and when it stays as it was."""

import pytest
import torch
from transformers import CLIPVisionModelWithProjection

from compress.calibrating.calibration import Calibration
from compress.choices import LEAST_IMAGES
from compress.errors import UserError
from compress.solving.alignment import align_features, notes_of
from corpora import load_corpus
from pruning_mechanism import Reduction, Tower, TowerError, image_embeddings, reduce
from tests.compress.losses import align_tower
from tests.compress.same_function import CHANGES
from tests.conftest import tiny_clip, tiny_processor
from tests.lanes import sweep
from tests.pruning_mechanism.conftest import tiny_model


def calibration(folder, images: int = 16) -> Calibration:
    corpus = load_corpus("folder", folder, "train")
    return Calibration.draw(corpus, images, 0, tiny_processor(), batch_size=5)


@pytest.mark.parametrize("features", [0, 6, None])
def test_an_aligned_tower_is_as_far_from_its_target_as_the_regression_says(folder, features):
    target = tiny_clip()
    early = reduce(target, Reduction(layers=1, merged_per_layer=(4, 4, 4)))
    images = calibration(folder)
    aligned, solved = align_tower(Tower.of(target), early, images, features)
    pixels = torch.cat([each.pixels for each in images.batches()])
    with torch.no_grad():
        before, after = (
            (image_embeddings(each, pixels) - image_embeddings(target, pixels)).square().sum(1)
            for each in (early, aligned)
        )
    assert before.mean().item() == pytest.approx(solved.before, rel=1e-4)
    assert after.mean().item() == pytest.approx(solved.after, rel=1e-3, abs=1e-5)
    assert solved.after < solved.before


def test_a_tower_that_gives_the_target_already_stays_as_it_is(folder):
    target = tiny_clip()
    aligned, solved = align_tower(Tower.of(target), target, calibration(folder))
    assert solved.before == pytest.approx(0, abs=1e-9)
    assert solved.as_it_was
    own = aligned.visual_projection.linear
    assert torch.equal(own.weight[:, :16], target.visual_projection.weight)
    assert not own.weight[:, 16:].any()
    assert not own.bias.any()
    pixels = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        found, expected = image_embeddings(aligned, pixels), image_embeddings(target, pixels)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_aligning_again_keeps_the_random_features_and_is_no_worse():
    generator = torch.Generator().manual_seed(0)
    pooled, targets = torch.randn(20, 32, generator=generator), torch.randn(20, 8)
    once, first = align_features(reduce(tiny_clip(), Reduction(layers=1)), pooled, targets, 6)
    again, second = align_features(once, pooled, targets)
    assert second.before == pytest.approx(first.after, rel=1e-4)
    assert second.after <= second.before
    old, new = (each.visual_projection.random.weight for each in (once, again))
    assert torch.equal(old, new)


def test_columns_that_never_vary_do_no_harm():
    pooled, targets = torch.randn(9, 32), torch.randn(9, 8)
    pooled[:, 3] = 5.0
    aligned, solved = align_features(reduce(tiny_clip(), Reduction(layers=1)), pooled, targets, 4)
    assert all(each.isfinite().all() for each in aligned.state_dict().values())
    assert solved.after <= solved.before


def test_too_few_images_are_refused():
    exit_one = reduce(tiny_clip(), Reduction(layers=1))
    pooled, targets = torch.randn(LEAST_IMAGES, 32), torch.randn(LEAST_IMAGES, 8)
    align_features(exit_one, pooled, targets, 4)
    with pytest.raises(UserError, match="takes 8 at least"):
        align_features(exit_one, pooled[1:], targets[1:], 4)


@pytest.mark.parametrize("images", [LEAST_IMAGES, 16, 32, 200])
def test_on_other_images_it_is_no_worse_than_the_projection_that_it_replaces(images):
    """Few images tell 32 dimensions and 64 random features apart whatever they show."""
    model, generator = tiny_clip(), torch.Generator().manual_seed(0)
    projection = model.visual_projection.weight.detach()
    before, after, stayed = [], [], 0
    for seed in range(10):
        pooled = torch.randn(images + 300, 32, generator=generator)
        noise = torch.randn(images + 300, 8, generator=generator)
        targets = pooled[:, :16] @ projection.T + noise
        aligned, solved = align_features(model, pooled[:images], targets[:images], seed=seed)
        with torch.no_grad():
            given = aligned.visual_projection(pooled[images:])
        before.append((pooled[images:, :16] @ projection.T - targets[images:]).square().mean())
        after.append((given - targets[images:]).square().mean())
        stayed += solved.as_it_was
        (note,) = notes_of(solved, images) or ("",)
        assert note.startswith(f"the projection stays as it was: with {images} images") == (
            solved.as_it_was
        )
    assert sum(after) <= 1.01 * sum(before)
    assert stayed >= 8


@pytest.mark.parametrize(
    "change", sweep(CHANGES, ("recombined_heads", "permuted_units", "shifted_values"))
)
def test_the_same_function_is_aligned_the_same(folder, change):
    """Whatever the coordinates that its heads and neurons are written in."""
    model, images = tiny_clip().double(), calibration(folder)
    changed = CHANGES[change](model, torch.Generator().manual_seed(0), "vision")
    pixels = torch.randn(5, 3, 16, 16, dtype=torch.float64)
    solved, given = [], []
    for each in (model, changed):
        aligned, found = align_tower(Tower.of(model), reduce(each, Reduction(layers=1)), images, 6)
        solved.append(found)
        with torch.no_grad():
            given.append(image_embeddings(aligned, pixels))
    assert solved[1].strength == solved[0].strength
    assert solved[1].left_out == pytest.approx(solved[0].left_out, rel=1e-4)
    torch.testing.assert_close(given[1], given[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("features", [0, 64])
def test_what_hardly_varies_gets_no_weight_beyond_half_precision(features):
    """A tower is as good in half precision as in the one that it was solved in."""
    generator = torch.Generator().manual_seed(0)
    pooled = torch.randn(300, 32, generator=generator)
    pooled[:, 0] = 5 + 1e-6 * pooled[:, 0]
    pooled[:, 1] = -20 + 2e-5 * pooled[:, 1]
    pooled[:, 2] *= 1e-7
    steep = (pooled - pooled.mean(0)) / pooled.std(0)  # what hardly varies says as much
    targets = steep[:, :8] @ torch.randn(8, 8, generator=generator)
    early = reduce(tiny_clip(), Reduction(layers=1))
    aligned, solved = align_features(early, pooled, targets, features)
    assert not solved.as_it_was
    projection = aligned.visual_projection
    assert max(each.abs().max() for each in projection.parameters()) < 1e4
    with torch.no_grad():
        whole = (projection(pooled) - targets).square().sum(1).mean()
        half = (projection.half()(pooled.half()).float() - targets).square().sum(1).mean()
    assert half == pytest.approx(whole.item(), rel=0.02)


@pytest.mark.parametrize("factor", [1e-4, 1e4])
def test_alignment_has_the_units_of_what_is_read_off(factor):
    """A layer norm that gives little, and a projection that makes much of it."""
    generator = torch.Generator().manual_seed(0)
    pooled, targets = (torch.randn(40, size, generator=generator) for size in (32, 8))
    early = reduce(tiny_clip(), Reduction(layers=1))
    once, first = align_features(early, pooled, targets, 6)
    with torch.no_grad():
        early.visual_projection.weight /= factor
    again, second = align_features(early, pooled * factor, targets, 6)
    assert second.left_out == pytest.approx(first.left_out, rel=1e-5)
    with torch.no_grad():
        given = once.visual_projection(pooled), again.visual_projection(pooled * factor)
    torch.testing.assert_close(*given, rtol=1e-4, atol=1e-4)


def test_a_tower_whose_embedding_is_no_projection_of_tokens_is_refused():
    pooled, targets = torch.randn(9, 32), torch.randn(9, 8)
    with pytest.raises(TowerError, match="Head is no projection that can be aligned"):
        align_features(tiny_model("siglip"), pooled, targets)


def test_embeddings_of_another_size_have_nothing_that_could_stay():
    generator = torch.Generator().manual_seed(0)
    pooled, targets = (torch.randn(20, size, generator=generator) for size in (32, 5))
    alone = CLIPVisionModelWithProjection(tiny_clip().config.vision_config)
    aligned, solved = align_features(alone, pooled, targets, 6)
    assert not solved.as_it_was
    assert aligned.visual_projection(pooled).isfinite().all()
    assert aligned.visual_projection.linear.out_features == 5
