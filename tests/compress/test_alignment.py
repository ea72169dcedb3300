"""Alignment: ridge regression with its exact leave-one-out error."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compress.alignment import align_features, align_tower, ridge
from compress.calibration import Calibration
from corpora import load_corpus
from pruning_mechanism import Reduction, Tower, image_embeddings, reduce
from tests.conftest import tiny_clip, tiny_processor


def problem(seed: int, images: int = 12, features: int = 5, outputs: int = 3):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    x = draw(images, features)
    return x, x @ draw(features, outputs) + draw(images, outputs), draw(features, outputs)


def refit(x, y, prior, strength):
    """Ridge towards a prior with a free intercept, from its normal equations."""
    mean_x, mean_y = x.mean(0), (y - x @ prior).mean(0)
    centred = x - mean_x
    right = centred.T @ (y - x @ prior - mean_y)
    change = torch.linalg.solve(
        centred.T @ centred + strength * torch.eye(x.shape[1], dtype=x.dtype), right
    )
    return prior + change, mean_y - mean_x @ change


@pytest.mark.parametrize("towards_prior", [True, False])
@pytest.mark.parametrize("strength", [1e-3, 0.1, 3.0])
def test_the_leave_one_out_error_is_that_of_refitting_without_each_image(strength, towards_prior):
    x, y, prior = problem(0)
    if towards_prior:  # an offset that 0 would not find: the prior is the better start
        y = y + 100 * (x @ prior)
        prior = 101 * prior
    nothing = torch.full((3,), 1e6, dtype=torch.float64)  # as it was is no choice
    solved = ridge(x, y, prior, nothing, [strength])
    scale = torch.linalg.eigvalsh((x - x.mean(0)).T @ (x - x.mean(0))).mean() * strength
    starts = (prior, torch.zeros_like(prior))
    errors = []
    for start in starts:
        lost = 0.0
        for out in range(len(x)):
            others = torch.arange(len(x)) != out
            weight, free = refit(x[others], y[others], start, scale)
            lost += (y[out] - x[out] @ weight - free).square().sum().item()
        errors.append(lost / len(x))
    assert solved.left_out == pytest.approx(min(errors), rel=1e-9)
    best = starts[errors.index(min(errors))]
    weight, free = refit(x, y, best, scale)
    torch.testing.assert_close(solved.weight, weight)
    torch.testing.assert_close(solved.intercept, free)


@pytest.mark.parametrize("images", [4, 9, 30])
def test_fewer_images_than_features_are_solved_as_the_normal_equations_say(images):
    x, y, prior = problem(1, images, features=12)
    x[:, 7] = x[:, 3]
    nothing = torch.full((3,), 1e6, dtype=torch.float64)
    solved = ridge(x, y, prior, nothing, [0.1])
    squares = (x - x.mean(0)).square().sum()
    fits = [refit(x, y, start, 0.1 * squares / 12) for start in (prior, torch.zeros_like(prior))]
    torch.testing.assert_close(
        solved.weight, min((weight for weight, _ in fits), key=lambda w: (w - solved.weight).norm())
    )
    found = (y - x @ solved.weight - solved.intercept).square().sum(1).mean().item()
    assert found == pytest.approx(solved.after, rel=1e-9)


@pytest.mark.parametrize("images", [4, 30])
def test_features_that_say_nothing_leave_the_mean(images):
    x, y, prior = problem(2, images, features=12)
    nothing = torch.full((3,), 1e6, dtype=torch.float64)
    solved = ridge(torch.ones_like(x), y, prior, nothing)
    torch.testing.assert_close(
        (torch.ones_like(x) @ solved.weight + solved.intercept)[0], y.mean(0)
    )
    assert solved.left_out == pytest.approx(solved.after / (1 - 1 / images) ** 2)


@given(st.integers(0, 1000), st.floats(0, 3))
def test_on_its_own_images_it_is_never_worse_than_what_it_replaces(seed, noise):
    x, y, prior = problem(seed, images=6)
    y = x @ prior + noise * y
    solved = ridge(x, y, prior, y.new_zeros(3))
    assert solved.after <= solved.left_out + 1e-12
    assert solved.left_out <= solved.before + 1e-12
    found = (y - x @ solved.weight - solved.intercept).square().sum(1).mean().item()
    assert found == pytest.approx(solved.after, abs=1e-9)


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
