"""A product in 8 bits is that of the rounded numbers, and rounding stays within half a level."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pruning_mechanism.runtimes.on_gpu.products import LARGEST, EightBitLinear, rounded

KINDS = ("float8", "int8")


def drawn(*size: int, seed: int = 0) -> torch.Tensor:
    """Rows of very different sizes, as activations are."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randn(size[0], 1, generator=generator).exp()
    return torch.randn(size, generator=generator) * sizes


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 1000))
def test_rows_come_back_within_half_a_level(kind, seed):
    rows = drawn(5, 32, seed=seed)
    levels, scales = rounded(rows, kind)
    back = levels.double() * scales
    largest = rows.abs().amax(1, keepdim=True).double()
    if kind == "int8":
        bound = largest / 127 / 2
    else:  # 3 bits behind the point, and below 2⁻⁶ steps of 2⁻⁹
        bound = rows.abs().double().mul(2**-4).maximum(2**-10 * largest / LARGEST[kind])
    assert ((back - rows).abs() <= bound * (1 + 1e-5)).all()
    assert torch.allclose(back.abs().amax(1), largest[:, 0], rtol=1e-5)  # the largest is a level


@pytest.mark.parametrize("kind", KINDS)
def test_zeros_stay_zeros_and_what_is_not_finite_is_not_hidden(kind):
    rows = torch.zeros(3, 16)
    rows[1, 2], rows[2, 3] = float("nan"), float("inf")
    levels, scales = rounded(rows, kind)
    back = levels.float() * scales
    assert (back[0] == 0).all()
    assert not back[1].isfinite().all()
    assert not back[2].isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [(1,), (40,), (2, 13)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_a_linear_map_is_the_product_of_what_was_rounded(kind, rows, with_bias):
    weight = drawn(48, 32, seed=1)
    bias = drawn(1, 48, seed=2)[0].bfloat16() if with_bias else None
    hidden = drawn(torch.Size(rows).numel(), 32).reshape(*rows, 32).bfloat16()
    found = EightBitLinear(weight, bias, kind)(hidden)
    levels, scales = rounded(hidden.flatten(0, -2), kind)
    own, by = rounded(weight, kind)
    wanted = (levels.double() * scales) @ (own.double() * by).T
    if bias is not None:
        wanted = wanted + bias.double()
    assert found.dtype == torch.bfloat16
    assert found.shape == (*rows, 48)
    torch.testing.assert_close(found.flatten(0, -2).double(), wanted, rtol=2**-7, atol=2e-2)


def test_widths_that_a_gpu_does_not_take_are_refused():
    with pytest.raises(ValueError, match="multiples of 16"):
        EightBitLinear(torch.ones(24, 32), None, "float8")
