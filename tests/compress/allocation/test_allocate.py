import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPVisionConfig

from compress.allocation.allocate import (
    Choices,
    Curve,
    best_units,
    by_curves,
    cheapest_loss,
    uniform,
)
from compress.budgets.prices import Prices
from compress.calibrating.importance import Importance
from compress.errors import UserError
from pruning_mechanism import Shape
from tests.lanes import examples

CONFIG = CLIPVisionConfig(
    hidden_size=16,
    intermediate_size=40,
    num_hidden_layers=3,
    num_attention_heads=4,
    image_size=16,
    patch_size=4,
)
numbers = st.floats(0, 10, allow_nan=False)


@st.composite
def tables(draw):
    """Choices of up to four sublayers with up to five sizes each."""
    return [
        Choices(
            np.array(draw(st.lists(st.integers(0, 9), min_size=n, max_size=n)), dtype=float),
            np.array(draw(st.lists(numbers, min_size=n, max_size=n))),
        )
        for n in draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    ]


@settings(max_examples=examples(33, 100), deadline=None)
@given(choices=tables(), budget=st.integers(0, 40))
def test_the_dynamic_programme_is_brute_force(choices, budget):
    totals = {
        combination: (
            sum(c.costs[i] for c, i in zip(choices, combination, strict=True)),
            sum(c.losses[i] for c, i in zip(choices, combination, strict=True)),
        )
        for combination in itertools.product(*(range(len(c.costs)) for c in choices))
    }
    within = [loss for cost, loss in totals.values() if cost <= budget]
    if not within:
        with pytest.raises(ValueError, match="no choice fits"):
            cheapest_loss(choices, budget)
        return
    cost, loss = totals[tuple(cheapest_loss(choices, budget))]
    assert cost <= budget
    assert loss == pytest.approx(min(within))


def importance(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Importance(torch.rand(3, 4, generator=generator), torch.rand(3, 40, generator=generator))


def curves(weights=(1.0, 1.0, 1.0)):
    return [
        Curve(layer, kind, units, (0, units // 4, units), (weight, weight / 5, 0.0))
        for layer, weight in enumerate(weights)
        for kind, units in (("heads", 4), ("neurons", 40))
    ]


@settings(max_examples=examples(13, 40), deadline=None)
@given(constraint=st.floats(0.01, 1))
def test_the_budget_is_kept(constraint):
    budget = Shape.of(CONFIG).encoder_macs * constraint * (1 + 1e-9)
    for mask in (
        by_curves(importance(), curves(), Prices.in_macs(CONFIG, constraint)),
        uniform(importance(), Prices.in_macs(CONFIG, constraint)),
    ):
        assert mask.shape(CONFIG).encoder_macs <= budget


def test_the_budget_goes_where_the_loss_is():
    mask = by_curves(importance(), curves((0.01, 0.01, 10.0)), Prices.in_macs(CONFIG, 0.4))
    assert mask.heads[2].all()
    assert mask.neurons[2].sum() > 2 * mask.neurons[:2].sum(1).max()


def test_everything_stays_if_all_of_the_budget_does():
    mask = by_curves(importance(), curves(), Prices.in_macs(CONFIG, 1.0))
    assert mask.heads.all()
    assert mask.neurons.all()


def test_uniform_keeps_the_same_number_in_every_layer():
    mask = uniform(importance(), Prices.in_macs(CONFIG, 0.5))
    assert mask.heads.sum(1).tolist() == [2, 2, 2]
    assert len(set(mask.neurons.sum(1).tolist())) == 1


def test_a_curve_never_rises_with_size_and_passes_through_its_points():
    curve = Curve(0, "heads", 8, (0, 2, 4, 8), (1.0, 0.2, 0.3, 0.0))
    found = curve.at(np.arange(9))
    assert (np.diff(found) <= 1e-12).all()
    assert found[[0, 4, 8]].tolist() == pytest.approx([1.0, 0.3, 0.0])


def test_the_best_units_of_each_layer_are_kept():
    scores = torch.tensor([[3.0, 1, 2, 2], [1, 1, 1, 1]])
    assert best_units(scores, [2, 1]).tolist() == [
        [True, False, True, False],
        [True, False, False, False],
    ]


def test_a_constraint_outside_0_to_1_is_refused():
    for constraint in (0.0, 1.2, float("nan")):
        with pytest.raises(UserError, match=r"must be in \(0, 1\]"):
            Prices.in_macs(CONFIG, constraint)
