"""What may be kept: constraints, and what heads and neurons cost under them.

Stands between importance and allocation. A constraint is a share of what the dense tower costs, in
MACs or in measured seconds, or a number of heads that go; prices say what each size of a sublayer
costs in that currency, in whole units, so that sums are exact.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from compress.errors import UserError
from pruning_mechanism import Mask, Shape, TowerKind
from pruning_mechanism.costs.latency import LatencyTable

LATENCY_STEPS = 20_000
"""Units that a dense tower's seconds are counted in: far finer than any clock repeats itself."""


@dataclass(frozen=True)
class Constraint:
    """What a rule is asked for: a share of the dense cost, or a number of its own.

    Of pruning rules it is how many heads go; of others the share of patches that is masked, the
    tokens merged in a layer, the layer to exit after ….
    """

    kind: str
    value: float | None = None

    @property
    def label(self) -> str:
        """How reports name it."""
        if self.value is None:
            return self.kind
        if self.kind == "heads":
            return f"{int(self.value)} heads"
        return f"{self.kind} {self.value:g}"

    @property
    def slug(self) -> str:
        """How directories name it."""
        return self.label.replace(" ", "-").lower()

    def on_the_way(self, progress: float) -> "Constraint":
        """A milder constraint, `progress` in (0, 1] of the way from the dense tower: geometric.

        Heads go in equal numbers.
        """
        if self.kind == "heads":
            return Constraint(self.kind, round(self.value * progress))
        return Constraint(self.kind, self.value**progress)

    def check_tower(self, config, tower: TowerKind = "vision") -> None:
        """Raise `UserError` if one of `config`'s towers can't meet it."""
        self.check()
        if self.kind == "heads":
            check_heads(int(self.value), config, tower)

    def check(self) -> None:
        """Raise `UserError` if a share of the cost is outside (0, 1]."""
        if self.kind in ("MAC", "latency") and not 0 < self.value <= 1:
            flag = f"--{self.kind.lower()}-constraint"
            raise UserError(f"{flag} must be in (0, 1], found {self.value}")


def check_heads(heads: int, config, tower: TowerKind = "vision") -> None:
    """Raise `UserError` unless the tower has that many heads to give up."""
    available = Mask.dense(config, tower).heads.numel()
    if not 0 <= heads <= available:
        raise UserError(f"--heads {heads}: the {tower} tower has {available} heads")


@dataclass(frozen=True)
class Prices:
    """What one layer's attention costs with 0, 1, … heads, and its MLP with 0, 1, … neurons.

    `heads` [H + 1] and `neurons` [F + 1] are int64, as is `budget`, what all layers may cost
    together to keep the `constraint`. MACs never fall as sizes rise; seconds do where the hardware
    likes the larger width better. `sized` gives the costs of attention at arrays of numbers of
    heads, of sizes of their queries and keys and of their values; None: heads have one size only.
    """

    heads: np.ndarray
    neurons: np.ndarray
    budget: int
    constraint: float
    sized: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] | None = None

    @classmethod
    def in_macs(cls, config, mac_constraint: float, tower: TowerKind = "vision") -> "Prices":
        """In MACs: the kept share of the dense encoder layers of one of `config`'s towers.

        Raises:
            UserError: the constraint is outside (0, 1].
        """
        Constraint("MAC", mac_constraint).check()
        shape = Shape.of(config, dense=True, tower=tower)
        return cls(
            np.arange(shape.heads[0] + 1) * shape.head_macs(),
            np.arange(shape.neurons[0] + 1) * shape.neuron_macs(),
            shape.budget(mac_constraint),
            mac_constraint,
            lambda heads, *sizes: heads * shape.sized_head_macs(*sizes),
        )

    @classmethod
    def in_seconds(cls, config, table: LatencyTable, latency_constraint: float) -> "Prices":
        """In measured seconds, counted in `LATENCY_STEPS` of the dense tower's.

        What no layer can save, the patch embedding and the like, is taken off the budget.

        Raises:
            UserError: the constraint is outside (0, 1], or not even an empty tower meets it.
        """
        Constraint("latency", latency_constraint).check()
        if table.least > latency_constraint:
            raise UserError(
                f"--latency-constraint {latency_constraint:g}: even a tower without heads and "
                f"neurons takes {table.least:.3f} of the dense tower's time here"
            )
        shape = Shape.of(config, dense=True)
        unit = table.dense / LATENCY_STEPS

        def steps(seconds: np.ndarray) -> np.ndarray:
            return np.ceil(seconds / unit).astype(np.int64)

        heads = steps(table.attention(np.arange(shape.heads[0] + 1)))
        neurons = steps(table.mlp(np.arange(shape.neurons[0] + 1)))
        budget = int((table.budget(latency_constraint) - table.outside) / unit)
        least = int(len(shape.heads) * (heads[0] + neurons[0]))  # rounding up must not forbid it
        return cls(
            heads,
            neurons,
            max(budget, least),
            latency_constraint,
            lambda heads, *sizes: steps(table.attention(heads, *sizes)),
        )

    @classmethod
    def in_heads(cls, config, heads: int, tower: TowerKind = "vision") -> "Prices":
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

    def of(self, kind: str, units: np.ndarray, *dims: np.ndarray, layer: int = 0) -> np.ndarray:
        """What a sublayer of that kind costs at these sizes, arrays of equal length.

        `dims` are the query-key and the value sizes of its heads, if they are not the dense ones.
        All layers cost the same.
        """
        del layer
        return self.sized(units, *dims) if dims else getattr(self, kind)[units]
