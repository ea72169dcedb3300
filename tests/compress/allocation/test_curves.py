import pytest
import torch
from torch.nn.functional import cosine_similarity

from compress.allocation.allocate import best_units
from compress.allocation.curves import compensated, measure_curves
from compress.calibrating.moments import dense_moments
from compress.solving.eliminate import importance_of
from pruning_mechanism import Tower, image_embeddings, sublayers
from tests.compress.solving.test_repair import Images
from tests.conftest import tiny_clip


@pytest.fixture(scope="module")
def measured():
    model, images = tiny_clip(1), Images(40, 1)
    tower = Tower.of(model)
    moments = dense_moments(tower, images.batches())
    importance = importance_of(tower, moments)
    return model, images, moments, importance, measure_curves(tower, importance, moments, images)


def test_there_is_a_curve_for_every_sublayer_that_ends_in_no_loss(measured):
    curves = measured[-1]
    assert [(c.layer, c.kind) for c in curves[:3]] == [(0, "heads"), (0, "neurons"), (1, "heads")]
    for curve in curves:
        assert curve.sizes[0] == 0
        assert curve.sizes[-1] == {"heads": 4, "neurons": 24}[curve.kind]
        assert curve.losses[-1] == 0 < curve.losses[0]


def test_a_point_is_the_loss_of_the_tower_with_that_sublayer_alone_pruned(measured):
    model, images, moments, importance, curves = measured
    index = 3  # the MLP of layer 1
    part, curve = sublayers(model)[index], curves[index]
    kept = best_units(importance.neurons[1][None], [curve.sizes[2]])[0]
    weight = compensated(moments[index], part, kept).float()
    with torch.no_grad():
        dense = image_embeddings(model, images.pixels)
        with part.watch(lambda features: features * kept):
            old = part.output.weight.clone(), part.output.bias.clone()
            part.output.weight[:, kept] = weight[:-1].T
            part.output.bias.copy_(weight[-1])
            pruned = image_embeddings(model, images.pixels)
            part.output.weight.copy_(old[0])
            part.output.bias.copy_(old[1])
    expected = 1 - cosine_similarity(pruned, dense).mean().item()
    assert curve.losses[2] == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_keeping_all_inputs_gives_the_dense_weight_back(measured):
    model, _, moments, _, _ = measured
    part = sublayers(model)[1]
    weight = compensated(moments[1], part, torch.ones(24, dtype=torch.bool))
    torch.testing.assert_close(weight[:-1].T.float(), part.output.weight, atol=1e-4, rtol=1e-3)
