"""Towers and images that least squares could stumble over: the right answer, or a clear refusal."""

import json
import math
import shutil

import pytest
import torch
from PIL import Image
from torch.nn.functional import cosine_similarity

from compress import recover
from compress.allocation.curves import compensated, measure_curves
from compress.calibrating.calibration import Calibration
from compress.calibrating.importance import mask_gradients
from compress.calibrating.moments import Moments, dense_moments
from compress.calibrating.objective import Embedding
from compress.calibrating.token_weights import token_weights
from compress.command import run_command
from compress.errors import UserError
from compress.fisher import fisher_information
from compress.solving.eliminate import eliminate_units, importance_of
from compress.solving.repair import repair_tower
from corpora import load_corpus
from pruning_mechanism import Mask, Tower, load, prune, sublayers
from tests.compress.conftest import Pairs
from tests.compress.losses import embedding_loss
from tests.compress.solving.test_repair import Images
from tests.conftest import tiny_clip, tiny_processor
from tests.pruning_mechanism.conftest import tiny_model

NAN, DEAD = float("nan"), -1e4
EVERY = torch.ones(24, dtype=torch.bool)


@pytest.fixture
def calibration(folder):
    corpus = load_corpus("folder", folder, "train")
    return Calibration.draw(corpus, 8, 0, tiny_processor(), batch_size=4)


class Constant(Images):
    """The same image again and again."""

    def __init__(self, images: int, seed: int = 0):
        super().__init__(images, seed)
        self.pixels = self.pixels[:1].repeat(images, 1, 1, 1)


def mlps(model):
    return [layer.mlp for layer in model.vision_model.encoder.layers]


def cut(tower: Tower, neurons: torch.Tensor) -> Tower:
    """The tower with all of its heads, and in every layer these neurons [24]."""
    dense = Mask.dense(tower.model.config)
    return Tower.of(prune(tower.model, Mask(dense.heads, neurons.expand(3, 24))))


def with_twins(seed: int = 0) -> Tower:
    """A tower whose neurons 12 … 23 do what its neurons 0 … 11 do."""
    model = tiny_clip(seed)
    with torch.no_grad():
        for mlp in mlps(model):
            mlp.fc1.weight[12:] = mlp.fc1.weight[:12]
            mlp.fc1.bias[12:] = mlp.fc1.bias[:12]
    return Tower.of(model)


def with_dead(neurons: slice, seed: int = 0) -> Tower:
    """A tower some of whose neurons answer 0 whatever they see."""
    model = tiny_clip(seed)
    with torch.no_grad():
        for mlp in mlps(model):
            mlp.fc1.weight[neurons], mlp.fc1.bias[neurons] = 0.0, DEAD
    return Tower.of(model)


def recoverable(tower, images):
    return importance_of(tower, dense_moments(tower, images.batches()))


def similarity(dense: Tower, smaller: Tower) -> float:
    """The least cosine of the two towers' embeddings of images that neither was repaired on."""
    pixels = Images(32, 99).pixels
    with torch.no_grad():
        return cosine_similarity(dense.embeddings(pixels), smaller.embeddings(pixels)).min()


def test_of_twin_neurons_one_goes_for_nothing_and_repair_makes_up_for_it():
    tower, images = with_twins(), Images(64, 0)
    scores = recoverable(tower, images).neurons
    for layer in scores:  # of each pair one is free, the other isn't
        pairs = layer.view(2, 12)
        assert (pairs.amin(0) < 1e-3).all()
        assert (pairs.amax(0) > 5 * pairs.amin(0)).all()
    smaller = cut(tower, torch.arange(24) < 12)
    assert similarity(tower, smaller) < 0.99
    repair_tower(tower, smaller, images)
    assert similarity(tower, smaller) > 0.999


def test_dead_neurons_go_first_and_cost_nothing():
    tower, images = with_dead(slice(5, 12)), Images(32, 1)
    scores = recoverable(tower, images).neurons
    alive = torch.ones(24, dtype=torch.bool)
    alive[5:12] = False
    assert (scores[:, ~alive] < 1e-4).all()  # what damping makes of nothing
    assert (scores[:, alive].median(1).values > 1e-3).all()
    smaller = cut(tower, alive)
    repairs = repair_tower(tower, smaller, images)
    assert not any(each.problem for each in repairs)
    assert similarity(tower, smaller) > 0.9999


def test_dead_neurons_that_stay_do_not_spoil_the_repair():
    tower, images = with_dead(slice(0, 6)), Images(64, 2)
    before = similarity(tower, cut(tower, torch.arange(24) < 16))
    for kind in ("rescale", "reconstruct"):
        smaller = cut(tower, torch.arange(24) < 16)
        for each in repair_tower(tower, smaller, images, kind):
            assert each.error_after <= each.error_before * (1 + 1e-6) + 1e-9
        assert all(parameter.isfinite().all() for parameter in smaller.model.parameters())
    assert similarity(tower, smaller) > before


def test_an_mlp_of_dead_neurons_alone_is_worth_nothing():
    tower, images = with_dead(slice(0, 24)), Images(16, 3)
    moments = dense_moments(tower, images.batches())
    importance = importance_of(tower, moments)
    assert (importance.neurons == 0).all()
    for curve in measure_curves(tower, importance, moments, images):
        assert all(map(math.isfinite, curve.losses))
        if curve.kind == "neurons":
            assert max(curve.losses) < 1e-5


@pytest.mark.parametrize("unit_width", [1, 4])
def test_inputs_that_are_all_zero_are_eliminated_in_some_order_at_no_loss(unit_width):
    moments = Moments(24, 16)
    moments.add_batch(torch.zeros(50, 24), torch.zeros(50, 16))
    found = eliminate_units(moments, torch.ones(25, 16, dtype=torch.float64), unit_width)
    assert sorted(found.order.tolist()) == list(range(24 // unit_width))
    assert found.errors.tolist() == [0.0] * (24 // unit_width)


@pytest.mark.parametrize("inputs", [24, 768])
def test_inputs_that_never_change_are_left_to_the_bias(inputs):
    row = 3 * torch.randn(inputs, generator=torch.Generator().manual_seed(0))
    moments = Moments(inputs, 16)
    for _ in range(4):
        moments.add_batch(row.repeat(500, 1), torch.ones(500, 16))
    weight = torch.randn(inputs + 1, 16, dtype=torch.float64)
    found = eliminate_units(moments, weight, 1)
    assert sorted(found.order.tolist()) == list(range(inputs))
    assert found.errors.max() == 0
    part = sublayers(tiny_clip(intermediate_size=inputs))[1]
    for kept in (inputs, inputs // 2):
        weight = compensated(moments, part, torch.arange(inputs) < kept).float()
        answer = row[:kept] @ weight[:-1] + weight[-1]
        torch.testing.assert_close(answer, torch.ones(16), atol=0.02, rtol=0)


def test_elimination_refuses_moments_that_are_not_finite():
    moments = Moments(24, 16)
    moments.add_batch(torch.full((5, 24), NAN), torch.zeros(5, 16))
    with pytest.raises(ValueError, match="not finite"):
        eliminate_units(moments, torch.ones(25, 16, dtype=torch.float64), 1)
    tower = Tower.of(tiny_clip())
    of_tower = dense_moments(tower, Images(4, 0).batches())
    of_tower[3] = moments
    with pytest.raises(UserError, match="not finite from the neurons of layer 1 on"):
        importance_of(tower, of_tower)


def test_with_fewer_tokens_than_neurons_those_too_many_are_free():
    tower, images = Tower.of(tiny_clip(4)), Images(1, 4)  # 17 tokens: 16 neurons and a bias
    scores = recoverable(tower, images).neurons
    assert scores.isfinite().all()
    for layer in scores.sort().values:
        assert layer[7] < 1e-2
        assert layer[-1] > 0.5


def test_two_images_are_enough_for_a_repair_that_makes_nothing_worse():
    tower, images = Tower.of(tiny_clip(5)), Images(2, 5)
    smaller = cut(tower, torch.arange(24) % 3 > 0)
    for kind in ("rescale", "reconstruct"):
        for each in repair_tower(tower, smaller, images, kind):
            assert each.error_after <= each.error_before * (1 + 1e-6) + 1e-9
    assert all(parameter.isfinite().all() for parameter in smaller.model.parameters())


def test_constant_images_give_finite_scores_curves_and_weights():
    tower, images = Tower.of(tiny_clip(6)), Constant(24)
    moments = dense_moments(tower, images.batches())
    importance = importance_of(tower, moments)
    for scores in (importance.heads, importance.neurons):
        assert scores.isfinite().all()
        assert (scores >= 0).all()
    for curve in measure_curves(tower, importance, moments, images):
        assert all(map(math.isfinite, curve.losses))
    smaller = cut(tower, torch.arange(24) < 18)
    repair_tower(tower, smaller, images)
    assert embedding_loss(tower, smaller, images) < 1e-4


@pytest.mark.parametrize("allocate", ["curves", "scores", "uniform"])
def test_recover_on_one_colour_keeps_the_budget(clip_directory, folder, tmp_path, allocate):
    shutil.copytree(folder, tmp_path / "corpus")
    for more, path in enumerate((tmp_path / "corpus" / "train").glob("*.png")):
        Image.new("RGB", (24 + more, 20), (90, 90, 90)).save(path)  # the same pixels, other files
    given = ["--model", clip_directory, "--corpus", "folder", "--corpus-dir", tmp_path / "corpus"]
    given += ["--samples", 12, "--batch-size", 4, "--repair-samples", 8]
    given += ["--curve-samples", 8] if allocate == "curves" else []
    given += ["--allocate", allocate, "--output", tmp_path / "out"]
    run_command(recover.main, recover.RecoverOptions, "compress.recover", [*map(str, given)])
    record = json.loads((tmp_path / "out" / "compression.json").read_text())
    assert 0.3 < record["mac_fraction"] <= 0.5
    smaller = load(tmp_path / "out")
    assert all(parameter.isfinite().all() for parameter in smaller.parameters())


DAMAGE = {
    "the patch embedding": lambda model: model.vision_model.embeddings.patch_embedding.weight,
    "the heads of layer 1": lambda model: (
        model.vision_model.encoder.layers[1].self_attn.q_proj.bias
    ),
    "the neurons of layer 1": lambda model: mlps(model)[1].fc1.weight,
    "the neurons of layer 2": lambda model: mlps(model)[2].fc2.bias,
    "the projection": lambda model: model.visual_projection.weight,
}


def damaged(place: str, value: float = NAN) -> Tower:
    model = tiny_clip(7)
    with torch.no_grad():
        DAMAGE[place](model).view(-1)[3] = value
    return Tower.of(model)


@pytest.mark.parametrize("value", [NAN, math.inf])
@pytest.mark.parametrize("place", DAMAGE)
def test_recover_names_where_a_tower_stops_being_finite(place, value, calibration):
    with pytest.raises(UserError, match=f"not finite from {place} on"):
        recover.scores(damaged(place, value).model, calibration)


@pytest.mark.parametrize("place", DAMAGE)
def test_fisher_names_where_a_tower_stops_being_finite(place, calibration):
    with pytest.raises(UserError, match=f"not finite from {place} on"):
        fisher_information(mask_gradients(damaged(place), calibration.batches(), Embedding()))


@pytest.mark.parametrize("place", [place for place in DAMAGE if place != "the projection"])
def test_moments_name_where_a_tower_stops_being_finite(place):
    with pytest.raises(UserError, match=f"not finite from {place} on"):
        dense_moments(damaged(place), Images(4, 7).batches())


TEXT_DAMAGE = {
    "the token embedding": lambda text: text.embeddings.token_embedding.weight,
    "the heads of layer 0": lambda text: text.encoder.layers[0].self_attn.q_proj.bias,
    "the neurons of layer 1": lambda text: text.encoder.layers[1].mlp.fc2.bias,
}


@pytest.mark.parametrize("place", TEXT_DAMAGE)
def test_a_text_tower_is_told_where_it_stops_being_finite(place):
    model, texts = tiny_model("clip"), Pairs(8, 7)
    with torch.no_grad():
        TEXT_DAMAGE[place](model.text_model)[..., 3] = NAN
    tower = Tower.of(model, "text")
    with pytest.raises(UserError, match=f"not finite from {place} on"):
        dense_moments(tower, texts.batches())
    with pytest.raises(UserError, match=f"not finite from {place} on"):
        token_weights(tower, texts)


@pytest.mark.parametrize("place", DAMAGE)
def test_curves_name_where_a_tower_stops_being_finite(place):
    whole, images = Tower.of(tiny_clip(7)), Images(8, 7)
    moments = dense_moments(whole, images.batches())
    importance, broken = importance_of(whole, moments), damaged(place)
    with pytest.raises(UserError, match=f"not finite from {place} on"):
        measure_curves(broken, importance, moments, images)


@pytest.mark.parametrize("kind", ["none", "rescale", "reconstruct"])
@pytest.mark.parametrize("place", [place for place in DAMAGE if "layer" in place])
def test_repair_names_where_a_tower_stops_being_finite(place, kind):
    whole, images = Tower.of(tiny_clip(7)), Images(8, 7)
    for dense, smaller in (
        (whole, damaged(place)),  # the smaller tower alone
        (damaged(place), cut(whole, EVERY)),  # the dense one alone
    ):
        with pytest.raises(UserError, match=f"not finite from {place} on"):
            repair_tower(dense, smaller, images, kind)


def test_repair_refuses_a_projection_that_is_not_finite():
    tower = damaged("the projection")
    with pytest.raises(UserError, match="not finite from the projection on"):
        repair_tower(tower, cut(tower, EVERY), Images(8, 7))


def test_a_batch_of_one_image_can_be_repaired_on():
    tower, images = Tower.of(tiny_clip(8)), Images(12, 8, batch_size=1)
    repairs = repair_tower(tower, cut(tower, torch.arange(24) % 3 > 0), images)
    assert not any(each.problem for each in repairs)
    assert repairs[-2].error_after < repairs[-2].error_before
