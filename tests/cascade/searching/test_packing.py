"""States that are kept as bytes come back bit for bit."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade.searching.packing import packed, unpacked
from cascade.searching.states import States
from tests.lanes import examples

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@settings(max_examples=examples(20, 300))
@given(
    images=st.integers(1, 4),
    tokens=st.integers(1, 7),
    width=st.integers(1, 9),
    dtype=st.sampled_from(DTYPES),
    sized=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_what_was_packed_is_unpacked(images, tokens, width, dtype, sized, seed):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(images, tokens, width, generator=generator).to(dtype)
    sizes = torch.randint(1, 200, (images, tokens), generator=generator).to(torch.int16)
    states = States(hidden, sizes if sized else None)
    rows = packed(states)
    assert rows.shape == (images, 16 + states.bytes_per_image)
    back = unpacked(rows[::-1])  # in any order, and not in one piece
    assert back.hidden.dtype == dtype
    assert torch.equal(back.hidden, hidden.flip(0))
    assert back.sizes is None if not sized else torch.equal(back.sizes, sizes.flip(0))


def test_what_is_damaged_is_not_taken_for_states():
    rows = packed(States(torch.zeros(2, 3, 4, dtype=torch.float16)))
    other = packed(States(torch.zeros(1, 4, 3, dtype=torch.float16)))
    for damaged in (rows[:, :-1], np.concatenate([rows, other]), np.full_like(rows, 255)):
        with pytest.raises(ValueError, match="rows of states are damaged"):
            unpacked(damaged)


def test_only_floating_point_states_are_packed():
    with pytest.raises(ValueError, match=r"torch.int8 can't be packed"):
        packed(States(torch.zeros(1, 2, 3, dtype=torch.int8)))
