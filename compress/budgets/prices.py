"""Prices: what each size of a sublayer costs under a budget.

Stands between importance and allocation. Prices are in the budget's own currency, MACs, seconds or
heads, counted in whole units, so that sums are exact.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from compress.budgets.budgets import (
    Budget,
    HeadBudget,
    SecondBudget,
    check_heads,
    check_share,
)
from compress.errors import UserError
from pruning_mechanism import Mask, Shape, TowerKind
from pruning_mechanism.costs.latency import LatencyTable
from pruning_mechanism.costs.sublayer_seconds import SublayerSeconds
from pruning_mechanism.protocols import Config

LATENCY_STEPS = 20_000
"""Units that a dense tower's seconds are counted in: far finer than any clock repeats itself."""
Sizes: TypeAlias = npt.NDArray[np.int64]
"""Numbers of units, or of dimensions of heads."""
Costs: TypeAlias = npt.NDArray[np.integer[Any] | np.floating[Any]]
"""What sizes cost, in the budget's currency."""


class SizePrices(Protocol):
    """What an allocation asks of prices: `Prices`, or others that differ between layers."""

    @property
    def budget(self) -> float:
        """What all layers may cost together."""

    def of(self, kind: str, units: Sizes, *dims: Sizes, layer: int) -> Costs:
        """What a layer's sublayer of that kind costs at these sizes, arrays of equal length."""


@dataclass(frozen=True)
class LayerPrices:
    """What a layer's attention costs with 0, 1, … heads, and its MLP with 0, 1, … neurons.

    `heads` [H + 1] and `neurons` [F + 1] are int64. MACs never fall as sizes rise; seconds do where
    the hardware likes the larger width better. `sized` gives the costs of attention at arrays of
    numbers of heads, of sizes of their queries and keys and of their values; None: heads have one
    size only.
    """

    heads: Sizes
    neurons: Sizes
    sized: Callable[[Sizes, Sizes, Sizes], Costs] | None = field(default=None, kw_only=True)

    def of_sublayer(self, kind: str, units: Sizes, *dims: Sizes) -> Costs:
        """What a sublayer of that kind costs at these sizes, arrays of equal length.

        `dims` are the query-key and the value sizes of its heads, if they are not the dense ones.

        Raises:
            ValueError: there are `dims`, but heads have one size only.
        """
        if not dims:
            return (self.heads if kind == "heads" else self.neurons)[units]
        if self.sized is None:
            raise ValueError("under these prices heads have one size only")
        return self.sized(units, *dims)


@dataclass(frozen=True)
class Prices(LayerPrices):
    """What the layers of a tower cost, all the same, but for a last one that is computed otherwise.

    `budget` is what all layers may cost together to keep the `constraint`. `last` are the prices of
    the uppermost layer, whose number is `last_layer`, if they are others.
    """

    budget: int
    constraint: float
    last: LayerPrices | None = None
    last_layer: int = -1

    @classmethod
    def in_macs(
        cls, config: Config, mac_constraint: float, tower: TowerKind = "vision"
    ) -> "Prices":
        """In MACs: the kept share of the dense encoder layers of one of `config`'s towers.

        A tower that takes fewer tokens, or ends early, pays for these alone; the share is of what
        it was before.

        Raises:
            UserError: the constraint is outside (0, 1].
        """
        check_share(mac_constraint, "MAC")
        dense, shape = Shape.of(config, dense=True, tower=tower), Shape.of(config, tower=tower)
        share = mac_constraint
        if shape.encoder_macs != dense.encoder_macs:
            share = min(1.0, dense.budget(mac_constraint) / shape.encoder_macs)
        return cls(
            np.arange(dense.heads[0] + 1) * _whole(shape.head_macs()),
            np.arange(dense.neurons[0] + 1) * _whole(shape.neuron_macs()),
            dense.budget(mac_constraint),
            share,
            sized=lambda heads, *sizes: heads * head_macs(shape, *sizes),
        )

    @classmethod
    def in_seconds(cls, config: Config, table: LatencyTable, latency_constraint: float) -> "Prices":
        """In measured seconds, counted in `LATENCY_STEPS` of the dense tower's.

        What no layer can save, the patch embedding and the like, is taken off the budget. Where the
        table knows what the last layer takes for the class token alone, that is its price.

        Raises:
            UserError: the constraint is outside (0, 1], or not even an empty tower meets it.
        """
        check_share(latency_constraint, "latency")
        if table.least > latency_constraint:
            raise UserError(
                f"latency {latency_constraint:g}: even a tower without heads and "
                f"neurons takes {table.least:.3f} of the dense tower's time here"
            )
        shape = Shape.of(config, dense=True)
        unit = table.dense / LATENCY_STEPS
        layer = _in_steps(table, shape, unit)
        own = None if table.class_token is None else _in_steps(table.class_token, shape, unit)
        budget = int((table.budget(latency_constraint) - table.outside) / unit)
        layers = [layer] * (table.layers - 1) + [own or layer]
        least = sum(int(each.heads[0] + each.neurons[0]) for each in layers)
        return cls(
            layer.heads,
            layer.neurons,
            max(budget, least),  # rounding up must not forbid it
            latency_constraint,
            own,
            table.layers - 1,
            sized=layer.sized,
        )

    @classmethod
    def in_heads(cls, config: Config, heads: int, tower: TowerKind = "vision") -> "Prices":
        """In heads: all but so many of the tower's, and every neuron for nothing.

        Raises:
            UserError: the tower has fewer heads.
        """
        dense = Mask.dense(config, tower)
        layers, per_layer = dense.heads.shape
        check_heads(heads, config, tower)
        kept = layers * per_layer - heads
        free = np.zeros(dense.neurons.shape[1] + 1, dtype=np.int64)
        return cls(np.arange(per_layer + 1), free, kept, kept / (layers * per_layer))

    def share_of(self, units: int) -> int:
        """The constraint's share of so many units, rounded down; 0.29 of 100 are 29."""
        return int(Fraction(repr(float(self.constraint))) * units)

    def of(self, kind: str, units: Sizes, *dims: Sizes, layer: int = 0) -> Costs:
        """What a layer's sublayer of that kind costs at these sizes, as in `of_sublayer`."""
        return self.of_layer(layer).of_sublayer(kind, units, *dims)

    def of_layer(self, layer: int) -> LayerPrices:
        """The prices of a layer, counted from 0."""
        return self if self.last is None or layer != self.last_layer else self.last

    def everywhere(self, layers: int) -> LayerPrices:
        """What so many layers cost together that all keep the same."""
        every = [self.of_layer(layer) for layer in range(layers)]
        heads = sum((each.heads for each in every), np.zeros_like(self.heads))
        neurons = sum((each.neurons for each in every), np.zeros_like(self.neurons))
        return LayerPrices(heads, neurons)


def _in_steps(table: SublayerSeconds, shape: Shape, unit: float) -> LayerPrices:
    """Seconds of sublayers in whole units."""

    def steps(seconds: npt.NDArray[np.float64]) -> Sizes:
        return np.ceil(seconds / unit).astype(np.int64)

    return LayerPrices(
        steps(table.attention(np.arange(shape.heads[0] + 1))),
        steps(table.mlp(np.arange(shape.neurons[0] + 1))),
        sized=lambda heads, *sizes: steps(table.attention(heads, *sizes)),
    )


def head_macs(shape: Shape, query_key_sizes: Sizes, value_sizes: Sizes, layer: int = 0) -> Costs:
    """MACs of one of a layer's heads at arrays of sizes, in which they are linear."""
    of_query_key, of_value = shape.sized_head_macs(1, 0, layer), shape.sized_head_macs(0, 1, layer)
    return query_key_sizes * of_query_key + value_sizes * of_value


def _whole(macs: float) -> int:
    """MACs of a unit, which are a mean over images where these have different sizes."""
    return math.ceil(macs)


def prices_of(
    budget: Budget,
    config: Config,
    tower: TowerKind = "vision",
    table: LatencyTable | None = None,
) -> Prices:
    """What the sizes of a tower's sublayers cost under a budget.

    Args:
        budget: in MACs, seconds or heads.
        config: the model's configuration.
        tower: which one of the model's.
        table: the tower's measured seconds, for a budget in seconds.

    Raises:
        UserError: the tower can't meet the budget, or not even if nothing is left of it.
        ValueError: the budget is in seconds, and there is no table.
    """
    if isinstance(budget, HeadBudget):
        return Prices.in_heads(config, budget.heads, tower)
    if isinstance(budget, SecondBudget):
        if table is None:
            raise ValueError(f"{budget.setting.label}: a budget in seconds takes a latency table")
        return Prices.in_seconds(config, table, budget.share)
    return Prices.in_macs(config, budget.share, tower)


def as_prices(budget: float | Prices, config: Config | None, tower: TowerKind = "vision") -> Prices:
    """Prices as they are, or those of a share of the MACs of one of `config`'s towers.

    Raises:
        UserError: the share is outside (0, 1], or there is no configuration that it is a share of.
    """
    if isinstance(budget, Prices):
        return budget
    if config is None:
        raise UserError(
            f"a MAC constraint of {budget:g} is a share of a tower's: pass its configuration too"
        )
    return Prices.in_macs(config, budget, tower)
