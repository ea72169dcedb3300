"""The sizes of sublayers that a latency table measures, and masks that contain all of them.

`latency_measurement` times the towers that are pruned to these masks.
"""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pruning_mechanism.costs.sublayer_seconds import largest_step
from pruning_mechanism.mask import Mask

LINE_WIDTHS = 24
"""Multiples of the step, besides 0, at which an MLP is measured; fewer if there are fewer."""
SHARES = (0.3, 0.6)
"""Shares of the dense width near which each smaller multiple is measured."""
HEAD_SHARES = (1 / 8, 1 / 4, 1 / 2, 1)
"""Shares of a head's dense size at which queries and keys, and values, are measured."""
WHOLE_SHARES = (0, 1 / 8, 1 / 4, 1 / 2, 3 / 4)
"""Shares of its heads and neurons that each layer of a whole tower is measured with."""


class Attention(NamedTuple):
    """The size of an attention sublayer: its heads, and the sizes of each of them."""

    heads: int
    query_key_size: int
    value_size: int


def mixed_masks(layers: int, heads: int, neurons: int, head_dim: int) -> list[Mask]:
    """Masks whose layers, taken together, keep every size that is measured.

    These are every number of heads, all heads of every size, and every measured width. They are
    dealt to layers at random (seeded): no tower is narrow as a whole, and no width always follows
    the same attention. The dense sizes are left to the dense tower.
    """
    numbers = [Attention(count, head_dim, head_dim) for count in range(heads)]
    sizes = [Attention(heads, *pair) for pair in product(measured_head_sizes(head_dim), repeat=2)]
    attention, widths = np.array([*numbers, *sizes[:-1]]), np.array(measured_widths(neurons)[:-1])
    towers = -(-max(len(widths), len(attention)) // layers)
    dealer = np.random.default_rng(0)
    slots = np.arange(towers * layers)
    dealt = [dealer.permutation(choices[slots % len(choices)]) for choices in (attention, widths)]
    kept = np.column_stack(dealt).reshape(towers, layers, -1)
    return [
        Mask(*map(_first, tower[:, [0, 3, 1, 2]].T, (heads, neurons, head_dim, head_dim)))
        for tower in kept
    ]


def uniform_counts(heads: int, neurons: int) -> list[tuple[int, int]]:
    """The numbers of heads and neurons per layer of the whole towers to measure, ascending.

    Numbers of neurons are multiples of the step. The dense tower, all of both, is left out.
    """
    step = largest_step(neurons)
    counts = [(round(s * heads), round(s * neurons / step) * step) for s in WHOLE_SHARES]
    return sorted(set(counts) - {(heads, neurons)})


def uniform_mask(layers: int, units: Sequence[int], kept: Sequence[int]) -> Mask:
    """A mask whose layers all keep the same, the first ones.

    Args:
        layers: number of layers.
        units: heads and neurons of a dense layer, and dimensions of its queries and keys, and of
            its values, if these aren't all to stay.
        kept: those that stay.
    """
    return Mask(
        *(_first(np.full(layers, count), of) for count, of in zip(kept, units, strict=True))
    )


def measured_head_sizes(head_dim: int, shares: Sequence[float] = HEAD_SHARES) -> list[int]:
    """The sizes of queries and keys, and of values, at these shares of the dense one, ascending."""
    return sorted({max(1, round(share * head_dim)) for share in shares})


def measured_widths(neurons: int) -> list[int]:
    """The numbers of neurons at which an MLP of `neurons` is measured, ascending from 0 to all.

    Multiples of the step, evenly spaced, and near each of `SHARES` one width for every smaller
    power of two, divided by it and by no larger one.
    """
    step = largest_step(neurons)
    line = np.linspace(0, neurons // step, min(LINE_WIDTHS, neurons // step) + 1)
    widths = {int(multiple) * step for multiple in line.round()} | {neurons}
    multiple = step // 2
    while multiple:
        widths |= {(2 * int(s * neurons / (2 * multiple)) + 1) * multiple for s in SHARES}
        multiple //= 2
    return sorted(width for width in widths if width <= neurons)


def _first(counts: np.ndarray, units: int) -> Tensor:
    """Which units stay if each layer keeps the first so many of them, [layers, units]."""
    return torch.arange(units) < torch.from_numpy(counts)[:, None]
