import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.calibration import Batch
from compress.repair import Moments, repair_tower, rescale_factors
from pruning_mechanism import Mask, image_embeddings, prune, sublayers
from tests.conftest import tiny_clip


class Images:
    """Calibration data that is at hand as pixels."""

    def __init__(self, images: int, seed: int, batch_size: int = 8):
        generator = torch.Generator().manual_seed(seed)
        self.pixels = torch.randn(images, 3, 16, 16, generator=generator)
        self.batch_size = batch_size

    def batches(self, progress=None):
        return (Batch(pixels, {}) for pixels in self.pixels.split(self.batch_size))


def problem(seed: int, tokens: int, units: int, width: int, outputs: int):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, units * width, generator=generator, dtype=torch.float64)
    w = torch.randn(units * width, outputs, generator=generator, dtype=torch.float64)
    t = torch.randn(tokens, outputs, generator=generator, dtype=torch.float64) + x @ w * 1.3
    return x, w, t


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), units=st.integers(1, 5), width=st.integers(1, 3))
def test_rescale_is_the_least_squares_solution_with_a_row_for_each_token_and_output(
    seed, units, width
):
    x, w, t = problem(seed, 30, units, width, 4)
    moments = Moments(units * width, 4)
    moments.add_batch(x[:11], t[:11])
    moments.add_batch(x[11:], t[11:])
    columns = [
        (x[:, u * width : (u + 1) * width] @ w[u * width : (u + 1) * width]).flatten()
        for u in range(units)
    ]
    design = torch.stack(columns, dim=1).numpy()
    strength = 0.1 * np.square(design).sum(0).mean()
    damped = np.vstack([design, np.sqrt(strength) * np.eye(units)])
    right = np.concatenate([t.flatten().numpy(), np.sqrt(strength) * np.ones(units)])
    expected = np.linalg.lstsq(damped, right, rcond=None)[0]
    found = rescale_factors(moments, w, width, damping=0.1)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_the_error_is_what_the_weight_leaves_of_the_target():
    x, w, t = problem(0, 20, 2, 3, 4)
    moments = Moments(6, 4)
    moments.add_batch(x, t)
    expected = ((x @ w - t).square().sum() / t.square().sum()).item()
    assert moments.error(w) == pytest.approx(expected, rel=1e-5)


def drop_some(model, seed: int) -> Mask:
    generator = torch.Generator().manual_seed(seed)
    dense = Mask.dense(model.config)
    return Mask(
        torch.rand(dense.heads.shape, generator=generator) < 0.7,
        torch.rand(dense.neurons.shape, generator=generator) < 0.7,
    )


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_on_calibration_data_rescale_leaves_no_more_error_than_none_in_any_sublayer(seed):
    model = tiny_clip(seed)
    smaller = prune(model, drop_some(model, seed))
    for repair in repair_tower(model, smaller, Images(16, seed), "rescale"):
        assert repair.error_after <= repair.error_before * (1 + 1e-6) + 1e-9


def test_repair_brings_the_embedding_back_towards_the_dense_one():
    model, images = tiny_clip(3), Images(64, 3)
    cut = prune(model, drop_some(model, 3))
    repaired = copy.deepcopy(cut)
    repair_tower(model, repaired, images, "rescale")
    unseen = Images(64, 4).pixels

    def distance(tower):
        with torch.no_grad():
            return (image_embeddings(tower, unseen) - image_embeddings(model, unseen)).norm()

    assert distance(repaired) < distance(cut)


def test_none_measures_and_changes_nothing():
    model = tiny_clip(5)
    smaller = prune(model, drop_some(model, 5))
    before = {name: tensor.clone() for name, tensor in smaller.state_dict().items()}
    repairs = repair_tower(model, smaller, Images(8, 5), "none")
    assert [(each.layer, each.kind) for each in repairs[:2]] == [(0, "heads"), (0, "neurons")]
    assert all(torch.equal(before[name], each) for name, each in smaller.state_dict().items())
    assert all(each.error_before == each.error_after for each in repairs)


def test_nothing_pruned_nothing_repaired():
    model = tiny_clip(6)
    smaller = prune(model, Mask.dense(model.config))
    for repair in repair_tower(model, smaller, Images(8, 6), "rescale"):
        assert repair.error_after < 1e-6
    for dense, kept in zip(sublayers(model), sublayers(smaller), strict=True):
        torch.testing.assert_close(kept.output.weight, dense.output.weight, atol=1e-4, rtol=1e-3)


def test_a_wild_solve_is_reported_and_leaves_factor_1():
    model = tiny_clip(7)
    with torch.no_grad():  # the kept units of layer 1 are a hundredth of what is lost with unit 0
        model.vision_model.encoder.layers[1].mlp.fc2.weight[:, 1:] *= 1e-3
        model.vision_model.encoder.layers[1].mlp.fc2.weight[:, 0] *= 100
    dense = Mask.dense(model.config)
    neurons = dense.neurons.clone()
    neurons[1, 0] = False
    smaller = prune(model, Mask(dense.heads, neurons))
    before = smaller.vision_model.encoder.layers[1].mlp.fc2.weight.clone()
    repairs = repair_tower(model, smaller, Images(16, 7), "rescale")
    (wild,) = [each for each in repairs if (each.layer, each.kind) == (1, "neurons")]
    assert "the factors stay 1" in wild.problem
    assert wild.error_after == wild.error_before
    assert torch.equal(smaller.vision_model.encoder.layers[1].mlp.fc2.weight, before)


def test_moments_that_are_not_finite_are_reported():
    model = tiny_clip(8)
    smaller = prune(model, Mask.dense(model.config))
    with torch.no_grad():
        smaller.vision_model.encoder.layers[2].mlp.fc1.weight[0] = float("nan")
    repairs = repair_tower(model, smaller, Images(8, 8), "rescale")
    assert "not finite" in repairs[-1].problem


def test_layers_without_units_are_passed_over():
    model = tiny_clip(9)
    dense = Mask.dense(model.config)
    heads, neurons = dense.heads.clone(), dense.neurons.clone()
    heads[1], neurons[2] = False, False
    smaller = prune(model, Mask(heads, neurons))
    repairs = repair_tower(model, smaller, Images(8, 9), "rescale")
    assert len(repairs) == 6
    assert not any(each.problem for each in repairs)
