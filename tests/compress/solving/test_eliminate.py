import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.calibrating.moments import Moments, output_weight
from compress.solving import eliminate as elimination
from compress.solving.eliminate import eliminate, eliminate_units
from pruning_mechanism import sublayers
from tests.conftest import tiny_clip
from tests.lanes import examples


def case(seed: int, inputs: int, outputs: int = 5, tokens: int = 60):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(inputs, inputs, generator=generator, dtype=torch.float64)
    x = torch.randn(tokens, inputs, generator=generator, dtype=torch.float64) @ mixing
    return x, torch.randn(inputs, outputs, generator=generator, dtype=torch.float64)


def lost(x, weight, keep) -> float:
    """‖XW - X_keep·best‖² by a fresh least-squares solve."""
    target = x @ weight
    if not keep:
        return target.square().sum().item()
    solution = torch.linalg.lstsq(x[:, keep], target).solution
    return (x[:, keep] @ solution - target).square().sum().item()


def inputs_of(units, width):
    return [unit * width + each for unit in units for each in range(width)]


@settings(max_examples=examples(13, 40), deadline=None)
@given(seed=st.integers(0, 10**6), units=st.integers(1, 6), width=st.integers(1, 4))
def test_the_running_error_is_that_of_a_fresh_solve_with_the_units_left(seed, units, width):
    x, weight = case(seed, units * width)
    order, costs = eliminate(torch.linalg.inv(x.T @ x), weight, width)
    for gone in range(units):
        keep = inputs_of(order[gone + 1 :].tolist(), width)
        error = costs[: gone + 1].sum().item()
        assert error == pytest.approx(lost(x, weight, keep), rel=1e-6, abs=1e-9)


@settings(max_examples=examples(13, 40), deadline=None)
@given(seed=st.integers(0, 10**6), units=st.integers(2, 6), width=st.integers(1, 3))
def test_each_step_removes_the_unit_whose_loss_costs_least(seed, units, width):
    x, weight = case(seed, units * width)
    order = eliminate(torch.linalg.inv(x.T @ x), weight, width)[0].tolist()
    left = list(range(units))
    for unit in order:
        errors = {
            each: lost(x, weight, inputs_of([u for u in left if u != each], width)) for each in left
        }
        assert errors[unit] <= min(errors.values()) * (1 + 1e-6) + 1e-9
        left.remove(unit)


def test_blocks_leave_errors_exact(monkeypatch):
    monkeypatch.setattr(elimination, "BLOCK", 4)
    x, weight = case(0, 30, tokens=200)
    order, costs = eliminate(torch.linalg.inv(x.T @ x), weight, 1)
    assert sorted(order.tolist()) == list(range(30))
    for gone in (3, 4, 11, 25):
        expected = lost(x, weight, order[gone + 1 :].tolist())
        assert costs[: gone + 1].sum().item() == pytest.approx(expected, rel=1e-6)


def test_the_bias_compensates_for_a_constant_unit():
    model = tiny_clip()
    part = sublayers(model)[1]
    features = torch.randn(50, 24)
    features[:, 7] = 3.0
    moments = Moments(24, 16)
    moments.add_batch(features, part.output(features))
    found = eliminate_units(moments, output_weight(part), 1)
    assert found.order[0] == 7
    assert found.errors[0] < elimination.DAMPING
    assert found.errors[-1] == pytest.approx(1, rel=1e-3)


def test_one_of_two_equal_units_goes_for_nothing():
    part = sublayers(tiny_clip())[1]
    features = torch.randn(80, 24)
    features[:, 5] = features[:, 9]
    moments = Moments(24, 16)
    moments.add_batch(features, part.output(features))
    found = eliminate_units(moments, output_weight(part), 1)
    assert found.order[0] in (5, 9)
    assert found.errors[0] < 1e-3 < found.errors[3]
