"""What sublayers cost where tokens get fewer from layer to layer, in MACs or in measured seconds.

Stands between a schedule of merging and the dynamic programme, as `compress.budgets.prices.Prices`
does where all layers see all tokens. The budget is a share of the dense tower's cost whatever the
schedule.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from compress.budgets.prices import Costs, Sizes, head_macs
from pruning_mechanism import Reduction, Shape, reduce
from pruning_mechanism.costs.latency import LatencyTable
from pruning_mechanism.costs.sublayer_seconds import SublayerSeconds
from pruning_mechanism.deployed.seconds import measure, seconds_of_merging
from pruning_mechanism.deployed.tower import Deployed
from pruning_mechanism.protocols import Config

Seconds = TypeVar("Seconds", float, npt.NDArray[np.float64])

SHARES = (0.25, 0.5, 1.0)
"""Shares of the patches at which seconds are measured; between them they are taken as linear.

Where a graph must be made of every size, at the first and the last of them."""


@dataclass(frozen=True)
class TokenPrices:
    """What each layer's attention and MLP cost, instead of `Prices`.

    `cost` gives the costs of a kind of sublayer in a layer at arrays of sizes: of heads and, if
    not all dense, the sizes of their queries and keys and of their values, or of neurons. `budget`
    is for all layers together.
    """

    cost: Callable[..., Costs]
    budget: float

    def of(self, kind: str, units: Sizes, *dims: Sizes, layer: int) -> Costs:
        """What a layer's sublayer of that kind costs at these sizes, arrays of equal length."""
        return self.cost(kind, units, *dims, layer=layer)


@dataclass(frozen=True)
class MacPrices:
    """In MACs; `budget` is for the encoder layers."""

    budget: float

    @classmethod
    def under(cls, config: Config, mac_constraint: float) -> "MacPrices":
        """Of the dense vision tower of a configuration the share that a MAC constraint says."""
        return cls(Shape.of(config, dense=True).budget(mac_constraint))

    def of_shape(self, shape: Shape) -> TokenPrices:
        """Prices where so many tokens enter each layer as in `shape`."""

        def cost(kind: str, units: Sizes, *dims: Sizes, layer: int) -> Costs:
            if kind == "neurons":
                return units * shape.neuron_macs(layer)
            query_key, value = dims or (np.full(len(units), shape.head_dim),) * 2
            kept = units * head_macs(shape, query_key, value, layer)
            return np.where(units > 0, kept, shape.without_heads_macs(layer))

        return TokenPrices(cost, self.budget)


@dataclass(frozen=True)
class SecondPrices:
    """In measured seconds an image; `budget` is for the whole tower.

    `tables` are of the same tower with fewer and with all of its patches, by rising numbers;
    `merging` is what a layer that merges tokens takes for that, at each of these numbers.
    """

    tables: tuple[LatencyTable, ...]
    merging: tuple[float, ...]
    budget: float = 0.0

    @classmethod
    def measured(
        cls, tower: Deployed, batch_size: int, class_token: bool = False
    ) -> "SecondPrices":
        """Measure a dense tower, with all its patches and with few of them, on this machine.

        Args:
            tower: dense.
            batch_size: images in a batch.
            class_token: whether smaller towers will be read off the class token alone, for which
                alone their last layer is then computed.

        Raises:
            TowerError: the tower can't be put where it is to run.
        """
        patches = int(Shape.of(tower.model.config).tokens) - 1
        shares = SHARES if tower.in_torch else (SHARES[0], SHARES[-1])
        towers = [
            tower.like(reduce(tower.model, Reduction(kept_patches=max(1, round(share * patches)))))
            for share in shares
        ]
        return cls(
            tuple(
                measure(tower, batch_size, progress="seconds", class_token=class_token)
                for tower in towers
            ),
            tuple(seconds_of_merging(tower, batch_size, progress="merging") for tower in towers),
        )

    def under(self, latency_constraint: float) -> "SecondPrices":
        """The same seconds with the budget that a latency constraint says."""
        return replace(self, budget=self.tables[-1].budget(latency_constraint))

    def of_shape(self, shape: Shape) -> TokenPrices:
        """Prices where so many tokens enter each layer as in `shape`.

        What no size can save, the patch embedding, merging and the like, is taken off the budget.
        The last layer costs what it takes for the class token alone, where the tables know that and
        none of its tokens merge.
        """
        counts = [table.conditions.tokens for table in self.tables]
        merging = sum(
            _between(counts, self.merging, tokens.attention)
            for tokens in shape.layer_tokens
            if tokens.matched
        )

        last = len(shape.layer_tokens) - 1

        def tables(layer: int) -> list[SublayerSeconds]:
            alone = layer == last and not shape.layer_tokens[layer].matched
            return [(table.class_token if alone else None) or table for table in self.tables]

        def cost(kind: str, units: Sizes, *dims: Sizes, layer: int) -> Costs:
            tokens = shape.layer_tokens[layer]
            if kind == "neurons":
                return _between(counts, [of.mlp(units) for of in tables(layer)], tokens.mlp)
            seconds = [of.attention(units, *dims) for of in tables(layer)]
            return _between(counts, seconds, tokens.attention)

        return TokenPrices(cost, self.budget - self.tables[-1].outside - merging)


def _between(counts: Sequence[float], seconds: Sequence[Seconds], tokens: float) -> Seconds:
    """Seconds at a number of tokens, linear between the two nearest counts and beyond the ends."""
    above = int(np.clip(np.searchsorted(counts, tokens), 1, len(counts) - 1))
    low, high = counts[above - 1], counts[above]
    share = (tokens - low) / (high - low)
    found: Seconds = np.maximum((1 - share) * seconds[above - 1] + share * seconds[above], 0.0)
    return found
