import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import LinAlgError
from torch import nn

from compress.calibrating.moments import Moments, dense_moments, linear_weight
from compress.calibrating.token_weights import TokenPlaces, TokenWeights
from compress.solving.least_squares import solve_damped
from compress.solving.repair import reconstruct, rescale
from pruning_mechanism import Tower
from tests.compress.solving.test_repair import Images
from tests.conftest import tiny_clip
from tests.lanes import examples


def features_and_targets(seed: int = 0, images: int = 5, tokens: int = 7):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(images, tokens, 4, generator=generator),
        torch.randn(images, tokens, 3, generator=generator),
    )


def expect(moments: Moments, design: torch.Tensor, targets: torch.Tensor) -> None:
    """The moments of rows that are written out, one a token, with what scales them inside."""
    close = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(moments.xx, design.T @ design, **close)
    torch.testing.assert_close(moments.xt, design.T @ targets, **close)
    assert moments.tt == pytest.approx(targets.square().sum().item(), rel=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_moments_are_those_of_rows_scaled_by_the_roots_of_their_weights(bias, weighted):
    x, t = features_and_targets()
    weights = torch.linspace(0, 2, 7) if weighted else None
    moments = Moments(4, 3, bias)
    for images in (slice(0, 2), slice(2, 5)):
        moments.add_batch(x[images], t[images], weights)
    roots = (torch.ones(7) if weights is None else weights).double().sqrt()[:, None].expand(5, 7, 1)
    columns = torch.cat([x, torch.ones(5, 7, 1)], dim=-1) if bias else x
    expect(moments, (columns * roots).flatten(0, 1).double(), (t * roots).flatten(0, 1).double())


@pytest.mark.parametrize("bias", [True, False])
def test_moments_of_two_sets_add_up_to_those_of_both(bias):
    x, t = features_and_targets()
    whole, first, second = (Moments(4, 3, bias) for _ in range(3))
    whole.add_batch(x, t)
    first.add_batch(x[:1], t[:1])
    second.add_batch(x[1:], t[1:])
    both = first + second
    torch.testing.assert_close(both.xx, whole.xx, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(both.xt, whole.xt, rtol=1e-5, atol=1e-5)
    assert both.tt == pytest.approx(whole.tt)
    assert both.xx.dtype == torch.float64


@settings(max_examples=examples(6, 20))
@given(seed=st.integers(0, 10**6), bias=st.booleans())
def test_the_error_of_a_weight_is_what_it_leaves_of_the_weighted_targets(seed, bias):
    x, t = features_and_targets(seed)
    weights = torch.rand(7, generator=torch.Generator().manual_seed(seed))
    moments = Moments(4, 3, bias)
    moments.add_batch(x, t, weights)
    layer = nn.Linear(4, 3, bias)
    left = ((layer(x) - t).square() * weights[:, None]).sum()
    expected = left / (t.square() * weights[:, None]).sum()
    assert moments.error(linear_weight(layer)) == pytest.approx(expected.item(), rel=1e-4)


def test_targets_of_nothing_but_zeros_leave_no_error():
    moments = Moments(4, 3)
    moments.add_batch(torch.ones(2, 4), torch.zeros(2, 3))
    assert moments.error(torch.zeros(5, 3, dtype=torch.float64)) == 0


def test_what_is_not_finite_is_neither_finite_nor_without_error():
    moments = Moments(4, 3)
    assert moments.finite
    moments.add_batch(torch.full((2, 4), math.nan), torch.ones(2, 3))
    assert not moments.finite
    assert math.isnan(moments.error(torch.ones(5, 3, dtype=torch.float64)))
    with pytest.raises(LinAlgError, match="not finite"):
        solve_damped(moments.xx, moments.xt, torch.ones(5, 3, dtype=torch.float64), 0.1)


@settings(max_examples=examples(10, 30))
@given(seed=st.integers(0, 10**6), damping=st.floats(1e-4, 1))
def test_a_solution_without_bias_is_ridge_regression_on_the_weighted_rows(seed, damping):
    x, t = features_and_targets(seed)
    weights = torch.rand(7, generator=torch.Generator().manual_seed(seed)) + 0.1
    moments = Moments(4, 3, bias=False)
    moments.add_batch(x, t, weights)
    prior = torch.ones(4, 3, dtype=torch.float64)
    roots = weights.double().sqrt()[:, None]
    design, right = (x * roots).flatten(0, 1).double(), (t * roots).flatten(0, 1).double()
    strength = damping * design.square().sum(0).mean()
    expected = torch.linalg.lstsq(
        torch.cat([design, strength.sqrt() * torch.eye(4)]),
        torch.cat([right, strength.sqrt() * prior]),
    ).solution
    found = solve_damped(moments.xx, moments.xt, prior, damping)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=examples(13, 40))
@given(seed=st.integers(0, 10**6), units=st.integers(1, 6), width=st.integers(1, 3))
def test_on_its_own_tokens_reconstruct_beats_rescale_beats_none(seed, units, width):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(40, units * width, generator=generator)
    t = torch.randn(40, 5, generator=generator)
    weight = torch.randn(units * width + 1, 5, generator=generator, dtype=torch.float64)
    moments = Moments(units * width, 5)
    moments.add_batch(x, t)
    almost_none = 1e-9  # of damping
    rescaled = moments.error(rescale(moments, weight, width, almost_none))
    reconstructed = moments.error(reconstruct(moments, weight, width, almost_none))
    assert reconstructed <= rescaled * (1 + 1e-6) + 1e-9
    assert rescaled <= moments.error(weight) * (1 + 1e-6) + 1e-9


def test_dense_moments_are_those_of_what_each_output_projection_gets_and_gives():
    tower, images = Tower.of(tiny_clip(2)), Images(12, 2)
    weights = [TokenWeights(1.0 + index, 0.5) for index in range(6)]
    found = dense_moments(tower, images.batches(), weights)
    with torch.no_grad():
        hidden = tower.embed(images.pixels)
        places = TokenPlaces.of(tower, images.pixels, hidden)
        for part, moments, of_tokens in zip(tower.sublayers, found, weights, strict=True):
            after = part(hidden)
            scale = of_tokens.spread(places).sqrt()[..., None].double()
            features = part.features(hidden).double()
            rows = torch.cat([features, torch.ones(12, 17, 1)], dim=-1) * scale
            targets = (after - hidden).double() * scale
            torch.testing.assert_close(
                moments.xx, rows.flatten(0, 1).T @ rows.flatten(0, 1), rtol=1e-4, atol=1e-3
            )
            torch.testing.assert_close(
                moments.xt, rows.flatten(0, 1).T @ targets.flatten(0, 1), rtol=1e-4, atol=1e-3
            )
            hidden = after
