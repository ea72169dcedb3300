"""Sizes of heads: their curves, and what an allocation makes of them."""

import functools
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cosine_similarity
from transformers import CLIPVisionConfig

from compress.allocation.allocate import Curve, by_curves
from compress.allocation.curves import compensated
from compress.allocation.head_dim_curves import measure_dim_curves
from compress.budgets.prices import Prices
from compress.calibrating.importance import Importance
from compress.calibrating.moments import Moments, dense_moments
from compress.solving.head_dims import rotate_tower
from pruning_mechanism import Mask, Shape, Tower, image_embeddings, prune
from tests.compress.solving.test_repair import Images
from tests.compress.test_towers import Texts
from tests.conftest import tiny_clip
from tests.lanes import examples
from tests.pruning_mechanism.conftest import tiny_model

CONFIG = CLIPVisionConfig(
    hidden_size=12,
    intermediate_size=3,
    num_hidden_layers=2,
    num_attention_heads=3,
    image_size=16,
    patch_size=4,
)  # 2 layers x 3 heads of 4 dimensions, and 3 neurons
SCORES = Importance(torch.rand(2, 3), torch.rand(2, 3))


@pytest.fixture(scope="module")
def turned():
    images = Images(24, 1)
    tower = rotate_tower(Tower.of(tiny_clip(1)), images.batches()).tower
    return tower, images, dense_moments(tower, images.batches())


@pytest.fixture(scope="module")
def curves(turned):
    tower, images, moments = turned
    return measure_dim_curves(tower, moments, images)


def test_there_are_two_curves_an_attention_sublayer_that_end_in_no_loss(curves):
    kinds = [(curve.layer, curve.kind) for curve in curves]
    assert kinds == list(itertools.product(range(3), ("qk_dims", "value_dims")))
    for curve in curves:
        assert (curve.units, curve.sizes) == (4, (1, 2, 3, 4))
        assert curve.losses[-1] == 0 < curve.losses[0]


@torch.no_grad()
@pytest.mark.parametrize("kind", ["qk_dims", "value_dims"])
def test_a_point_is_the_loss_of_the_tower_with_that_size_alone(turned, curves, kind):
    """The tower is cut, and its output projection solved for the dense one's output."""
    tower, images, _ = turned
    model = tower.model
    sizes = {kind: torch.tensor([[True] * 4, [True, True, False, False], [True] * 4])}
    dense = Mask.dense(model.config)
    smaller = prune(model, Mask(dense.heads, dense.neurons, **sizes))
    hidden = tower.embed(images.pixels)
    for part in tower.sublayers[:2]:
        hidden = part(hidden)
    whole, cut = (Tower.of(each).sublayers[2] for each in (model, smaller))
    moments = Moments(cut.output.in_features, 16)
    moments.add_batch(cut.features(hidden), whole(hidden) - hidden)
    every = torch.ones(cut.output.in_features, dtype=torch.bool)
    weight = compensated(moments, cut, every)
    cut.output.weight.copy_(weight[:-1].T)
    cut.output.bias.copy_(weight[-1])
    embeddings = (image_embeddings(each, images.pixels) for each in (smaller, model))
    expected = 1 - cosine_similarity(*embeddings).mean().item()
    curve = next(each for each in curves if (each.layer, each.kind) == (1, kind))
    assert curve.losses[1] == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_what_comes_after_the_end_of_a_text_moves_no_curve():
    short, long = Texts(24, 1, 0), Texts(24, 1, 6)
    tower = rotate_tower(Tower.of(tiny_model("clip"), "text"), short.batches()).tower
    moments = dense_moments(tower, short.batches())
    both = [measure_dim_curves(tower, moments, texts) for texts in (short, long)]
    for ours, theirs in zip(*both, strict=True):
        assert ours.losses == pytest.approx(theirs.losses, rel=1e-2, abs=1e-6)
        assert ours.losses[0] > 1e-4


@st.composite
def measured(draw):
    """Curves of two layers' heads, neurons and head dimensions, losses falling to 0."""

    def curve(layer, kind, sizes):
        losses = sorted(draw(st.lists(st.floats(0, 1), min_size=len(sizes), max_size=len(sizes))))
        return Curve(layer, kind, sizes[-1], tuple(sizes), (*losses[:0:-1], 0.0))

    kinds = {"heads": range(4), "neurons": range(4), "qk_dims": (1, 2, 4), "value_dims": (1, 2, 4)}
    return [curve(layer, kind, list(sizes)) for layer in range(2) for kind, sizes in kinds.items()]


@settings(max_examples=examples(4, 25))
@given(curves=measured(), constraint=st.floats(0.02, 1))
def test_sizes_are_allocated_as_brute_force_does(curves, constraint):
    """All sizes of two layers; the cost is that of the shape, the loss the sum of the curves."""
    dense = Shape.of(CONFIG, dense=True)
    budget = dense.budget(constraint)
    mask = by_curves(SCORES, curves, Prices.in_macs(CONFIG, constraint))
    assert mask.shape(CONFIG).encoder_macs <= budget

    @functools.cache
    def lost(number, size):
        return float(curves[number].at([size])[0])

    def loss(layer, sizes):
        own = [number for number, curve in enumerate(curves) if curve.layer == layer]
        return sum(lost(number, size) for number, size in zip(own, sizes, strict=True))

    layers = []  # what one layer may cost and lose: the cost of two layers is the sum
    for layer in range(2):
        found = []
        for sizes in itertools.product(range(4), range(4), range(1, 5), range(1, 5)):
            heads, neurons, query_key, value = sizes
            macs_of_heads = heads * dense.sized_head_macs(query_key, value)
            found.append((macs_of_heads + neurons * dense.neuron_macs(), loss(layer, sizes)))
        layers.append(sorted(found))
    best = min(
        lost + min(also for price, also in layers[1] if price <= budget - cost)
        for cost, lost in layers[0]
        if cost <= budget - layers[1][0][0]
    )
    chosen = [
        [int(getattr(mask, kind)[layer].sum()) for kind in ("heads", "neurons")]
        + [int(getattr(mask, kind)[layer].sum()) for kind in ("qk_dims", "value_dims")]
        for layer in range(2)
    ]
    assert sum(loss(layer, sizes) for layer, sizes in enumerate(chosen)) == pytest.approx(best)


def test_heads_keep_their_first_dimensions():
    falling = (1.0, 0.001, 0.0)
    curves = [
        Curve(layer, kind, 4, (1, 2, 4), falling)
        for layer in range(2)
        for kind in ("qk_dims", "value_dims")
    ]
    units = [
        Curve(layer, kind, 3, (0, 3), (9.0, 0.0))
        for layer in range(2)
        for kind in ("heads", "neurons")
    ]
    mask = by_curves(SCORES, [*units, *curves], Prices.in_macs(CONFIG, 0.7))
    assert mask.heads.all()
    assert not mask.qk_dims.all()
    for dims in (mask.qk_dims, mask.value_dims):
        assert all(row == sorted(row, reverse=True) for row in dims.tolist())
