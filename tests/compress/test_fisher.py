import itertools
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPVisionConfig

from compress.command import UserError
from compress.fisher import fisher_information, rearrange, select, split_budget
from compress.importance import Importance, MaskGradients
from pruning_mechanism import Mask, Shape


def tower(layers, heads, neurons):
    return CLIPVisionConfig(
        hidden_size=4 * heads,
        intermediate_size=neurons,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        image_size=8,
        patch_size=4,
    )


@st.composite
def small_towers(draw, most_units=12):
    layers, heads, neurons = (
        draw(st.integers(1, 2)),
        draw(st.integers(1, 3)),
        draw(st.integers(1, 4)),
    )
    scores = st.floats(2**-10, 8, allow_nan=False, width=32)
    units = layers * (heads + neurons)
    flat = torch.tensor(draw(st.lists(scores, min_size=units, max_size=units)))
    importance = Importance(
        flat[: layers * heads].view(layers, heads), flat[layers * heads :].view(layers, neurons)
    )
    return importance, tower(layers, heads, neurons)


def kept_importance(importance, mask):
    return (
        importance.heads[mask.heads].double().sum()
        + importance.neurons[mask.neurons].double().sum()
    )


def best_by_brute_force(importance, budget, shape) -> float:
    """The most importance that any of all masks keeps within the budget."""
    scores = torch.cat([importance.heads.flatten(), importance.neurons.flatten()]).double()
    heads = importance.heads.numel()
    costs = torch.full((len(scores),), float(shape.neuron_macs), dtype=torch.float64)
    costs[:heads] = shape.head_macs
    masks = torch.tensor(
        list(itertools.product([0.0, 1.0], repeat=len(scores))), dtype=torch.float64
    )
    kept, cost = masks @ scores, masks @ costs
    return kept[cost <= budget].max().item()


@settings(max_examples=60, deadline=None)
@given(case=small_towers(), constraint=st.floats(0.01, 1))
def test_the_split_is_the_best_of_all_masks(case, constraint):
    importance, config = case
    shape = Shape.of(config)
    mask = split_budget(importance, constraint, config)
    exactly = Fraction(repr(constraint)) * shape.encoder_macs
    expected = best_by_brute_force(importance, float(int(exactly)), shape)
    assert kept_importance(importance, mask).item() == pytest.approx(expected, rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), constraint=st.floats(0.01, 1))
def test_the_budget_is_kept_and_less_than_a_head_left_over(seed, constraint):
    generator = torch.Generator().manual_seed(seed)
    importance = Importance(
        torch.rand(4, 6, generator=generator), torch.rand(4, 50, generator=generator)
    )
    config = tower(4, 6, 50)
    shape = Shape.of(config)
    used = select(importance, constraint, config).shape(config).encoder_macs
    left = Fraction(repr(constraint)) * shape.encoder_macs - used
    assert 0 <= left < shape.head_macs


def test_equal_scores_use_the_budget_up():
    config = tower(2, 3, 8)
    importance = Importance(torch.zeros(2, 3), torch.zeros(2, 8))
    assert split_budget(importance, 1.0, config) == Mask.dense(config)


@pytest.mark.parametrize("constraint", [0, -0.1, 1.01, float("nan")])
def test_a_constraint_outside_0_to_1_is_refused(constraint):
    importance = Importance(torch.ones(1, 2), torch.ones(1, 3))
    with pytest.raises(UserError, match=r"must be in \(0, 1\]"):
        select(importance, constraint, tower(1, 2, 3))


def test_fisher_information_is_the_sum_of_outer_products():
    heads, neurons = torch.randn(10, 2, 3), torch.randn(10, 2, 5)
    parts = [MaskGradients(heads[:4], neurons[:4]), MaskGradients(heads[4:], neurons[4:])]
    found = fisher_information(parts)
    expected = sum(torch.stack([torch.outer(g, g) for g in image]) for image in neurons)
    torch.testing.assert_close(found.neuron_block, expected)
    torch.testing.assert_close(found.heads, heads.square().sum(0))


def form(block, keep):
    dropped = (~keep).double()
    return (dropped @ block.double() @ dropped).item()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), units=st.integers(2, 9), share=st.floats(0.1, 0.9))
def test_rearranging_lowers_the_form_until_no_swap_does(seed, units, share):
    generator = torch.Generator().manual_seed(seed)
    gradients = torch.randn(6, units, generator=generator)
    block = gradients.T @ gradients
    kept = max(1, int(share * units))
    keep = torch.zeros(units, dtype=torch.bool)
    keep[block.diagonal().argsort(descending=True)[:kept]] = True
    found = rearrange(block, keep)
    assert found.sum() == keep.sum()
    assert form(block, found) <= form(block, keep) + 1e-9
    for inside, outside in itertools.product(found.nonzero(), (~found).nonzero()):
        swapped = found.clone()
        swapped[inside], swapped[outside] = False, True
        assert form(block, swapped) >= form(block, found) - 1e-6 * block.abs().max().item()


def test_rearranging_keeps_one_of_two_units_that_stand_in_for_each_other():
    # units 0 and 1 hurt little if one goes and much if both do; unit 2 is worth more than either
    gradients = torch.tensor([[1.0, 1.0, 1.1], [1.0, 1.0, -1.1]])
    keep = torch.tensor([False, False, True])
    found = rearrange(gradients.T @ gradients, keep)
    assert found.tolist() in ([True, False, False], [False, True, False])


def test_selection_without_blocks_is_not_rearranged():
    config, importance = tower(2, 3, 8), Importance(torch.rand(2, 3), torch.rand(2, 8))
    assert select(importance, 0.5, config) == split_budget(importance, 0.5, config)
