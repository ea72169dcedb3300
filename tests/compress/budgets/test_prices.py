from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPVisionConfig

from compress.allocation.allocate import Curve, by_curves, uniform
from compress.budgets.budgets import FileBudget, HeadBudget, MacBudget, SecondBudget
from compress.budgets.prices import LATENCY_STEPS, Prices, as_prices
from compress.budgets.settings import Setting
from compress.calibrating.importance import Importance
from compress.errors import UserError
from pruning_mechanism import Mask
from tests.lanes import examples
from tests.pruning_mechanism.costs.test_latency import class_token_seconds, made_table

CONFIG = CLIPVisionConfig(
    hidden_size=16,
    intermediate_size=1024,
    num_hidden_layers=3,
    num_attention_heads=4,
    image_size=16,
    patch_size=4,
)
TABLE = made_table()  # 0.5 … 5 s an attention, 1 … 129 s an MLP, odd widths 1.5 times the line
LEAST = (10 + 3 * (0.5 + 1)) / TABLE.dense


def cost(prices: Prices, mask: Mask) -> int:
    """What the encoder layers of a tower with this mask cost."""
    heads, neurons = mask.heads.sum(1).numpy(), mask.neurons.sum(1).numpy()
    return int(prices.heads[heads].sum() + prices.neurons[neurons].sum())


def random_mask(seed: int) -> Mask:
    generator = torch.Generator().manual_seed(seed)
    return Mask(
        torch.rand(3, 4, generator=generator) < 0.6, torch.rand(3, 1024, generator=generator) < 0.6
    )


def sizes(mask: Mask) -> tuple[list[int], list[int]]:
    return mask.heads.sum(1).tolist(), mask.neurons.sum(1).tolist()


@pytest.mark.parametrize(
    ("setting", "label", "slug"),
    [
        (MacBudget(0.50).setting, "MAC 0.5", "mac-0.5"),
        (SecondBudget(0.35).setting, "latency 0.35", "latency-0.35"),
        (FileBudget(0.35).setting, "file-latency 0.35", "file-latency-0.35"),
        (HeadBudget(77).setting, "77 heads", "77-heads"),
        (Setting("r", 8), "r 8", "r-8"),
        (Setting("ridge"), "ridge", "ridge"),
    ],
)
def test_a_setting_is_named_by_its_kind_and_value(setting, label, slug):
    assert (setting.label, setting.slug) == (label, slug)


@pytest.mark.parametrize("value", [0.0, -0.1, 1.01, float("nan"), float("inf")])
@pytest.mark.parametrize("budget", [MacBudget, SecondBudget, FileBudget])
def test_a_share_outside_0_to_1_is_refused(budget, value):
    with pytest.raises(UserError, match=r"constraint must be in \(0, 1\], found"):
        budget(value)


@given(seed=st.integers(0, 10**6))
def test_in_macs_a_mask_costs_what_its_tower_does(seed):
    mask = random_mask(seed)
    assert cost(Prices.in_macs(CONFIG, 0.5), mask) == mask.shape(CONFIG).encoder_macs


def test_in_macs_prices_rise_by_the_same_step():
    prices = Prices.in_macs(CONFIG, 0.3)
    for each, units in ((prices.heads, 4), (prices.neurons, 1024)):
        assert (each[0], len(each)) == (0, units + 1)
        assert len(set(np.diff(each).tolist())) == 1
    assert prices.budget == int(0.3 * 3 * (prices.heads[-1] + prices.neurons[-1]))


def test_in_seconds_a_size_costs_what_the_table_says_in_whole_steps():
    prices, step = Prices.in_seconds(CONFIG, TABLE, 0.5), TABLE.dense / LATENCY_STEPS
    for each, seconds in (
        (prices.heads, TABLE.attention(range(5))),
        (prices.neurons, TABLE.mlp(range(1025))),
    ):
        above = each * step - seconds
        assert (above >= -1e-9).all()
        assert (above < step).all()


def test_in_seconds_more_heads_and_more_multiples_of_the_step_cost_more():
    prices = Prices.in_seconds(CONFIG, TABLE, 0.5)
    assert (np.diff(prices.heads) > 0).all()
    assert (np.diff(prices.neurons[:: TABLE.step]) > 0).all()


def test_in_seconds_a_width_that_the_hardware_likes_costs_less_than_an_odd_one_below():
    prices = Prices.in_seconds(CONFIG, TABLE, 0.5)
    assert prices.neurons[1024] < prices.neurons[1023]


def test_in_seconds_the_dense_tower_costs_just_about_its_budget():
    prices = Prices.in_seconds(CONFIG, TABLE, 1.0)
    dense = cost(prices, Mask.dense(CONFIG))
    assert prices.budget <= dense <= prices.budget + 2 * 3 + 1  # each sublayer is rounded up


@settings(max_examples=examples(10, 30))
@given(seed=st.integers(0, 10**6))
def test_in_seconds_a_mask_costs_what_the_table_predicts(seed):
    mask, prices = random_mask(seed), Prices.in_seconds(CONFIG, TABLE, 0.5)
    predicted = TABLE.tower(*sizes(mask))
    found = TABLE.outside + cost(prices, mask) * TABLE.dense / LATENCY_STEPS
    assert predicted <= found * (1 + 1e-12) <= predicted + 6.001 * TABLE.dense / LATENCY_STEPS


CHEAP_LAST = replace(TABLE, class_token=class_token_seconds())
"""A table by which the last layer takes a tenth, for the class token alone."""


@settings(max_examples=examples(10, 30))
@given(seed=st.integers(0, 10**6))
def test_the_last_layer_costs_what_it_takes_for_the_class_token_alone(seed):
    mask, prices = random_mask(seed), Prices.in_seconds(CONFIG, CHEAP_LAST, 0.5)
    heads, neurons = (np.array(kept) for kept in sizes(mask))
    steps = sum(
        int(prices.of(kind, units[layer : layer + 1], layer=layer)[0])
        for kind, units in (("heads", heads), ("neurons", neurons))
        for layer in range(3)
    )
    predicted, step = CHEAP_LAST.tower(*sizes(mask)), TABLE.dense / LATENCY_STEPS
    assert predicted <= TABLE.outside + steps * step + 1e-9 <= predicted + 6.001 * step
    assert predicted < TABLE.tower(*sizes(mask))


def test_what_the_last_layer_saves_is_spent_and_the_constraint_kept():
    flat = [replace(curve, losses=(1.0, 0.3, 0.1, 0.0)) for curve in curves()]  # layers are alike
    for table in (TABLE, CHEAP_LAST):
        prices = Prices.in_seconds(CONFIG, table, 0.4)
        kept = by_curves(importance(0), flat, prices, 8)
        assert 0.37 < table.tower(*sizes(kept)) / table.dense <= 0.4 * (1 + 1e-9)
        even = uniform(importance(0), prices)
        assert all(len(set(units)) == 1 for units in sizes(even))
        assert table.tower(*sizes(even)) / table.dense <= 0.4 * (1 + 1e-9)
    heads, neurons = sizes(kept)  # the last layer is cheap, and keeps most
    assert heads[-1] == 4
    assert max(neurons[:2]) < 600 < neurons[-1]


def test_a_latency_constraint_that_not_even_an_empty_tower_meets_is_refused_with_its_share():
    with pytest.raises(UserError, match=f"latency 0.03: .* takes {LEAST:.3f} of"):
        Prices.in_seconds(CONFIG, TABLE, 0.03)


def test_a_share_of_nothing_is_refused_with_a_word():
    with pytest.raises(UserError, match=r"0\.5 is a share of a tower's: pass its configuration"):
        as_prices(0.5, None)


def test_a_share_of_a_count_is_that_of_the_decimal_number():
    assert Prices.in_macs(CONFIG, 0.29).share_of(100) == 29


def curves() -> list[Curve]:
    return [
        Curve(layer, kind, units, (0, units // 4, units // 2, units), (weight, 0.3, 0.1, 0.0))
        for layer, weight in enumerate((0.5, 1.0, 2.0))
        for kind, units in (("heads", 4), ("neurons", 1024))
    ]


def importance(seed: int) -> Importance:
    generator = torch.Generator().manual_seed(seed)
    heads, neurons = (torch.rand(3, units, generator=generator) for units in (4, 1024))
    return Importance(heads, neurons)


@settings(max_examples=examples(13, 40))
@given(constraint=st.floats(LEAST + 0.002, 1), round_to=st.sampled_from([1, 8, 64]))
def test_under_a_latency_constraint_the_predicted_share_keeps_it(constraint, round_to):
    prices = Prices.in_seconds(CONFIG, TABLE, constraint)
    for mask in (
        by_curves(importance(0), curves(), prices, round_to),
        uniform(importance(0), prices),
    ):
        assert TABLE.tower(*sizes(mask)) / TABLE.dense <= constraint * (1 + 1e-9)


@pytest.mark.parametrize("constraint", [0.3, 0.6, 0.9])
def test_under_a_latency_constraint_the_budget_is_used(constraint):
    mask = by_curves(importance(0), curves(), Prices.in_seconds(CONFIG, TABLE, constraint), 64)
    heads, neurons = sizes(mask)
    assert TABLE.tower(heads, neurons) / TABLE.dense > constraint - 0.03
    assert all(width % 64 == 0 for width in neurons)


def test_uniform_takes_the_widest_mlp_that_the_seconds_pay_for():
    mask = uniform(importance(0), Prices.in_seconds(CONFIG, TABLE, 0.5))
    (heads,), (width,) = map(set, sizes(mask))
    assert heads == 2
    limit = 0.5 * TABLE.dense
    assert TABLE.tower([2] * 3, [width] * 3) <= limit
    wider = TABLE.mlp(range(width + 1, 1025))
    left = (limit - TABLE.outside) / 3 - TABLE.attention(2)
    assert (wider > left - 1.001 * TABLE.dense / LATENCY_STEPS).all()
