import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.calibrating.calibration import Batch
from compress.calibrating.moments import Moments
from compress.errors import UserError
from compress.solving.repair import reconstruct, repair_tower, rescale
from pruning_mechanism import Mask, Tower, image_embeddings, prune, sublayers
from tests.conftest import tiny_clip
from tests.lanes import examples


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


def halves(x, t) -> Moments:
    """Moments of all tokens, added in two batches as two sets."""
    half = len(x) // 2
    first, second = Moments(x.shape[1], t.shape[1]), Moments(x.shape[1], t.shape[1])
    first.add_batch(x[:half], t[:half])
    second.add_batch(x[half:], t[half:])
    return first + second


@settings(max_examples=examples(10, 30), deadline=None)
@given(seed=st.integers(0, 10**6), units=st.integers(1, 5), width=st.integers(1, 3))
def test_rescale_is_the_least_squares_solution_with_a_row_for_each_token_and_output(
    seed, units, width
):
    x, w, t = problem(seed, 30, units, width, 4)
    bias = torch.linspace(-1, 1, 4, dtype=torch.float64)
    moments = halves(x, t)
    columns = [
        (x[:, u * width : (u + 1) * width] @ w[u * width : (u + 1) * width]).flatten()
        for u in range(units)
    ]
    design = torch.stack(columns, dim=1).numpy()
    strength = 0.1 * np.square(design).sum(0).mean()
    damped = np.vstack([design, np.sqrt(strength) * np.eye(units)])
    right = np.concatenate([(t - bias).flatten().numpy(), np.sqrt(strength) * np.ones(units)])
    expected = np.linalg.lstsq(damped, right, rcond=None)[0].repeat(width)[:, None] * w.numpy()
    found = rescale(moments, torch.cat([w, bias[None]]), width, damping=0.1)
    np.testing.assert_allclose(found[:-1].numpy(), expected, rtol=1e-3, atol=1e-4)
    assert torch.equal(found[-1], bias)


@settings(max_examples=examples(10, 30), deadline=None)
@given(
    seed=st.integers(0, 10**6),
    units=st.integers(1, 4),
    width=st.integers(1, 3),
    tokens=st.integers(13, 40),
)
def test_reconstruct_is_least_squares_damped_by_what_a_change_does_to_its_units_output(
    seed, units, width, tokens
):
    x, w, t = problem(seed, tokens, units, width, 4)
    x, t = x + 2, t - 1
    centred_x, centred_t = (x - x.mean(0)).numpy(), (t - t.mean(0)).numpy()
    own = np.zeros((units, tokens, units * width))
    for unit in range(units):
        columns = slice(unit * width, (unit + 1) * width)
        own[unit][:, columns] = centred_x[:, columns]
    own = np.sqrt(0.1) * own.reshape(-1, units * width)
    damped = np.vstack([centred_x, own])
    right = np.vstack([centred_t, own @ w.numpy()])
    expected = np.linalg.lstsq(damped, right, rcond=None)[0]
    old = torch.cat([w, torch.ones(1, 4, dtype=torch.float64)])
    found = reconstruct(halves(x, t), old, width, damping=0.1)
    np.testing.assert_allclose(found[:-1].numpy(), expected, rtol=1e-6, atol=1e-8)
    free = t.mean(0).numpy() - x.mean(0).numpy() @ expected
    np.testing.assert_allclose(found[-1].numpy(), free, rtol=1e-6, atol=1e-8)


def test_the_error_is_what_the_weight_leaves_of_the_target():
    x, w, t = problem(0, 20, 2, 3, 4)
    bias = torch.ones(1, 4, dtype=torch.float64)
    expected = ((x @ w + bias - t).square().sum() / t.square().sum()).item()
    assert halves(x, t).error(torch.cat([w, bias])) == pytest.approx(expected, rel=1e-5)


def drop_some(model, seed: int) -> Mask:
    generator = torch.Generator().manual_seed(seed)
    dense = Mask.dense(model.config)
    return Mask(
        torch.rand(dense.heads.shape, generator=generator) < 0.7,
        torch.rand(dense.neurons.shape, generator=generator) < 0.7,
    )


@pytest.mark.parametrize("kind", ["rescale", "reconstruct"])
@settings(max_examples=examples(4, 10), deadline=None)
@given(seed=st.integers(0, 10**6))
def test_on_calibration_data_no_sublayer_is_left_with_more_error(kind, seed):
    model = tiny_clip(seed)
    smaller = prune(model, drop_some(model, seed))
    for repair in repair_tower(Tower.of(model), Tower.of(smaller), Images(16, seed), kind):
        assert repair.error_after <= repair.error_before * (1 + 1e-6) + 1e-9


def test_repair_brings_the_embedding_back_towards_the_dense_one():
    model, images = tiny_clip(3), Images(128, 3, batch_size=32)
    cut = prune(model, drop_some(model, 3))
    unseen = Images(64, 4).pixels

    def distance(kind):
        tower = copy.deepcopy(cut)
        repair_tower(Tower.of(model), Tower.of(tower), images, kind)
        with torch.no_grad():
            return (image_embeddings(tower, unseen) - image_embeddings(model, unseen)).norm()

    assert distance("reconstruct") < distance("rescale") < distance("none")


def test_none_measures_and_changes_nothing():
    model = tiny_clip(5)
    smaller = prune(model, drop_some(model, 5))
    before = {name: tensor.clone() for name, tensor in smaller.state_dict().items()}
    repairs = repair_tower(Tower.of(model), Tower.of(smaller), Images(8, 5), "none")
    assert [(each.layer, each.kind) for each in repairs[:2]] == [(0, "heads"), (0, "neurons")]
    assert all(torch.equal(before[name], each) for name, each in smaller.state_dict().items())
    assert all(each.error_before == each.error_after for each in repairs)


def test_nothing_pruned_nothing_repaired():
    model = tiny_clip(6)
    smaller = prune(model, Mask.dense(model.config))
    for repair in repair_tower(Tower.of(model), Tower.of(smaller), Images(8, 6), "rescale"):
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
    repairs = repair_tower(Tower.of(model), Tower.of(smaller), Images(16, 7), "rescale")
    (wild,) = [each for each in repairs if (each.layer, each.kind) == (1, "neurons")]
    assert "the weights stay as they are" in wild.problem
    assert wild.error_after == wild.error_before
    assert torch.equal(smaller.vision_model.encoder.layers[1].mlp.fc2.weight, before)


def test_activations_that_are_not_finite_are_refused_by_name():
    model = tiny_clip(8)
    smaller = prune(model, Mask.dense(model.config))
    with torch.no_grad():
        smaller.vision_model.encoder.layers[2].mlp.fc1.weight[0] = float("nan")
    with pytest.raises(UserError, match="not finite from the neurons of layer 2"):
        repair_tower(Tower.of(model), Tower.of(smaller), Images(8, 8), "rescale")


def test_layers_without_units_are_passed_over():
    model = tiny_clip(9)
    dense = Mask.dense(model.config)
    heads, neurons = dense.heads.clone(), dense.neurons.clone()
    heads[1], neurons[2] = False, False
    smaller = prune(model, Mask(heads, neurons))
    repairs = repair_tower(Tower.of(model), Tower.of(smaller), Images(8, 9), "rescale")
    assert [each.problem for each in (repairs[2], repairs[5])] == [None, None]
    assert len(repairs) == 6


def test_reconstruct_gives_a_layer_without_units_the_best_bias():
    model = tiny_clip(10)
    dense = Mask.dense(model.config)
    neurons = dense.neurons.clone()
    neurons[2] = False
    smaller = prune(model, Mask(dense.heads, neurons))
    last = repair_tower(Tower.of(model), Tower.of(smaller), Images(16, 10), "reconstruct")[-1]
    assert last.error_after < last.error_before


def pooled(model, pixels) -> torch.Tensor:
    """What the projection into the embedding space gets, float64 [images, d]."""
    with torch.no_grad():
        return model.vision_model(pixel_values=pixels).pooler_output.double()


def test_the_projection_is_solved_last_for_the_dense_embeddings():
    model, images = tiny_clip(11), Images(512, 11, batch_size=64)
    smaller = prune(model, drop_some(model, 11))
    prior = model.visual_projection.weight.T.detach().double()
    last = repair_tower(Tower.of(model), Tower.of(smaller), images)[-1]
    assert (last.layer, last.kind) == (3, "projection")
    assert last.damping is not None
    features = pooled(smaller, images.pixels)  # the projection is above all that it depends on
    with torch.no_grad():
        targets = image_embeddings(model, images.pixels).double()
    damping = torch.diag((last.damping * features.square().sum(0)).sqrt())  # there is no bias
    expected = torch.linalg.lstsq(
        torch.cat([features, damping]), torch.cat([targets, damping @ prior])
    ).solution
    torch.testing.assert_close(
        smaller.visual_projection.weight.T.double(), expected, rtol=1e-3, atol=1e-4
    )
    left = (features @ expected - targets).square().sum() / targets.square().sum()
    assert last.error_after == pytest.approx(left.item(), rel=1e-3)


@settings(max_examples=examples(4, 10))
@given(seed=st.integers(0, 10**6))
def test_the_solved_projection_takes_no_embedding_further_away_on_calibration_data(seed):
    model, images = tiny_clip(seed), Images(32, seed)
    smaller = prune(model, drop_some(model, seed))
    repair_tower(Tower.of(model), Tower.of(smaller), images)
    kept = copy.deepcopy(smaller)
    kept.visual_projection.load_state_dict(model.visual_projection.state_dict())
    with torch.no_grad():
        dense, solved, as_before = (
            image_embeddings(each, images.pixels) for each in (model, smaller, kept)
        )
    assert (solved - dense).norm() <= (as_before - dense).norm() * (1 + 1e-5)


@pytest.mark.parametrize("kind", ["none", "rescale"])
def test_only_reconstruct_solves_the_projection(kind):
    model = tiny_clip(12)
    smaller = prune(model, drop_some(model, 12))
    repairs = repair_tower(Tower.of(model), Tower.of(smaller), Images(16, 12), kind)
    assert {each.kind for each in repairs} == {"heads", "neurons"}
    assert torch.equal(smaller.visual_projection.weight, model.visual_projection.weight)
