"""From what towers of a few sizes take to a latency table: the sizes, and parts that add up to it.

The mathematics of `blocks`, which makes the towers and times them. A tower's seconds are taken to
be what stands around its layers, and for each layer what it takes without units and what its heads
and its neurons add, which lies on lines between the sizes that were measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.optimize import nnls

from pruning_mechanism.costs.conditions import Conditions
from pruning_mechanism.costs.latency import LatencyTable
from pruning_mechanism.costs.latency_sizes import measured_head_sizes
from pruning_mechanism.costs.sublayer_seconds import SublayerSeconds, largest_step

FEW = 1 / 4
"""The smaller share of heads and of neurons that is measured."""
LEAST = 1e-6
"""Share of the dense tower's seconds that a sublayer takes at least: differences are noisy."""

Shares = Mapping["Size | None", float]
"""Median seconds of towers / those of the whole dense one in the same turn, whose key is None."""


class Size(NamedTuple):
    """What each layer of a small tower keeps.

    And whether its last layer is for the class token alone, and it has the whole tower's layers.
    """

    heads: int
    neurons: int
    query_key_size: int
    value_size: int
    class_token: bool = False
    whole: bool = False


class Sizes(NamedTuple):
    """The sizes that are measured: `dense`, `few` and `least` of both, and heads of few dimensions.

    `least` are one head, and one step of neurons.
    """

    dense: Size
    few: Size
    least: Size
    narrow: int

    @classmethod
    def of(cls, heads: int, neurons: int, head_dim: int) -> "Sizes":
        """Those of a tower with so many heads, of so many dimensions, and neurons in each layer."""
        step = largest_step(neurons)
        return cls(
            Size(heads, neurons, head_dim, head_dim),
            Size(
                max(1, round(FEW * heads)),
                max(1, round(FEW * neurons / step)) * step,
                head_dim,
                head_dim,
            ),
            Size(1, step, head_dim, head_dim),
            measured_head_sizes(head_dim)[0],
        )

    @property
    def knots(self) -> tuple[list[int], list[int]]:
        """The numbers of heads, and of neurons, that lines run between."""
        return (
            sorted({size.heads for size in (self.least, self.few, self.dense)}),
            sorted({size.neurons for size in (self.least, self.few, self.dense)}),
        )

    @property
    def nothing(self) -> Size:
        """A layer without heads and neurons."""
        return self.dense._replace(heads=0, neurons=0)

    @property
    def deep(self) -> tuple[Size, Size]:
        """Those that towers of all layers are made of."""
        return self.nothing._replace(whole=True), self.few._replace(whole=True)

    def measured(self, deeper: bool = True, class_token: bool = False) -> tuple[Size, ...]:
        """All sizes that towers are made of, each once.

        Those of all layers are among them if the tower is `deeper` than small ones, and with
        `class_token` those whose last layer is for the class token alone.
        """
        dense, few, least, narrow = self
        alone = dense._replace(neurons=0)
        with_units = (
            dense, few, least, alone, few._replace(neurons=0), least._replace(neurons=0),
            alone._replace(query_key_size=narrow), alone._replace(value_size=narrow),
            alone._replace(query_key_size=narrow, value_size=narrow),
        )  # fmt: skip
        found = [self.nothing, *with_units, *(self.deep if deeper else ())]
        if class_token:
            found += [size._replace(class_token=True) for size in with_units]
        return tuple(dict.fromkeys(found))


def table_of(
    sizes: Sizes, shares: Shares, layers: int, block: int, conditions: Conditions, noise: float
) -> LatencyTable:
    """The table that towers of few layers make, in shares of the whole dense tower's seconds.

    Args:
        sizes: that they have.
        shares: their seconds / the whole dense tower's.
        layers: of the whole tower.
        block: layers of theirs.
        conditions: of the measurement.
        noise: of the shares.
    """
    parts = _solved(sizes, shares, layers, block)
    in_full = _sublayers(sizes, parts.layer)
    table = LatencyTable(
        layers=layers,
        outside=max(LEAST, parts.outside),
        noise=noise,
        conditions=conditions,
        **{each.name: getattr(in_full, each.name) for each in fields(in_full)},
    )
    if parts.last is not None:
        table = replace(table, class_token=_sublayers(sizes, parts.last))
    table = table.scaled(1 / table.dense)
    alike = (sizes.nothing, sizes.least, sizes.few, sizes.dense, *sizes.deep)
    towers = {
        _sum(table, size, layers if size.whole else block): shares[size]
        for size in alike
        if size in shares
    }
    wholes = sorted((parts, whole) for parts, whole in towers.items() if parts < 1)
    return replace(table, wholes=(*wholes, (1.0, 1.0)))


class Layer(NamedTuple):
    """Shares of the dense tower's seconds that the parts of a layer take.

    `empty` is what one without units takes; `heads` and `neurons` are what a sublayer's units add
    at each of `Sizes.knots`, rising; `saved` is what attention with all heads takes less where
    their queries and keys, their values, or both have few dimensions.
    """

    empty: float
    heads: tuple[float, ...]
    neurons: tuple[float, ...]
    saved: tuple[float, ...]


class Parts(NamedTuple):
    """Shares of the dense tower's seconds: of all but the layers, and of a layer.

    `last` is one that is computed for the class token alone, if there are towers with such.
    """

    outside: float
    layer: Layer
    last: Layer | None


def _solved(sizes: Sizes, shares: Shares, layers: int, block: int) -> Parts:
    """The parts whose sums come closest to all towers, in shares of each; none is below zero."""
    dense, (heads, neurons) = sizes.dense, sizes.knots
    deeper = any(size is not None and size.whole for size in shares)

    def units(size: Size, number: int) -> list[float]:
        keys, values = (
            size.query_key_size < dense.query_key_size,
            size.value_size < dense.value_size,
        )
        narrow = (keys and not values, values and not keys, keys and values)
        rises = (*_rises(size.heads, heads), *_rises(size.neurons, neurons))
        return [*(number * rise for rise in rises), *(-number * each for each in narrow)]

    def row(size: Size, number: int) -> list[float]:
        last = int(size.class_token)
        empty = deeper * (number - last)  # of one token it takes next to nothing
        return [1.0, empty, *units(size, number - last), *units(size, last)]

    rows = np.array(
        [row(size or dense, layers if size is None or size.whole else block) for size in shares]
    )
    taken = np.array(list(shares.values()))
    solved = nnls(rows / taken[:, None], np.ones(len(taken)))[0]

    def found(empty: float, part: np.ndarray) -> Layer:
        *rises, saved = np.split(part, np.cumsum([len(heads), len(neurons)]))
        of_heads, of_neurons = (tuple(np.cumsum(rise).tolist()) for rise in rises)
        return Layer(empty, of_heads, of_neurons, tuple(saved.tolist()))

    outside, empty = map(float, solved[:2])
    in_full, last = np.split(solved[2:], 2)
    known = any(size is not None and size.class_token for size in shares)
    return Parts(outside, found(empty, in_full), found(0.0, last) if known else None)


def _rises(count: int, knots: Sequence[int]) -> list[float]:
    """How far a number of units is along each of the lines that end at these."""
    return [
        min(max(count - before, 0) / (knot - before), 1.0) for before, knot in pairwise([0, *knots])
    ]


def _sublayers(sizes: Sizes, layer: Layer) -> SublayerSeconds:
    """What a layer's parts say of every size of its sublayers, in shares."""
    dense, narrow, (of_heads, widths) = sizes.dense, sizes.narrow, sizes.knots
    numbers = np.arange(dense.heads + 1)
    empty = layer.empty / 2  # of each of its sublayers
    heads = np.maximum(empty + np.interp(numbers, [0, *of_heads], [0.0, *layer.heads]), LEAST)
    neurons = np.maximum(empty + np.array([0.0, *layer.neurons]), LEAST)
    whole = float(heads[-1])
    keys, values, both = (max(LEAST, whole - saved) for saved in layer.saved)
    apart = narrow < dense.value_size
    return SublayerSeconds(
        heads=tuple(heads.tolist()),
        widths=(0, *widths),
        neurons=tuple(neurons.tolist()),
        head_sizes=(narrow, dense.value_size) if apart else (dense.value_size,),
        sized=((both, keys), (values, whole)) if apart else ((whole,),),
    )


def _sum(table: LatencyTable, size: Size, layers: int) -> float:
    """What a table says of the parts of so many layers that are all of one size."""
    attention, mlp = table.attention(size.heads), table.mlp(size.neurons)
    return float(table.outside + layers * (attention + mlp))
