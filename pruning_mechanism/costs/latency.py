"""Latency tables: what a tower costs in measured seconds, on one machine, for every mask.

The second way of counting cost, beside `cost`'s MACs: allocation chooses sizes whose predicted
seconds keep a latency constraint. `latency_measurement` makes the tables.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pruning_mechanism.cost import Shape
from pruning_mechanism.costs.conditions import Conditions
from pruning_mechanism.costs.sublayer_seconds import Floats, SublayerSeconds, rising
from pruning_mechanism.families import TowerError
from pruning_mechanism.protocols import Config

SCHEMA = 4


@dataclass(frozen=True, kw_only=True)
class LatencyTable(SublayerSeconds):
    """Measured seconds per image of the parts of a tower whose layers have one dense shape.

    Those of `SublayerSeconds` are of layers that are computed for all tokens. A narrow tower finds
    more of its weights and activations in the cache than its sublayers did among wide ones, so a
    few whole towers are measured too, and the sum of the parts is corrected along a line through
    them.

    Attributes:
        layers: number of layers.
        outside: seconds of all but the sublayers: patch embedding, outer norms, projection.
        noise: relative standard error of the sublayers' seconds, the median one.
        conditions: what it was measured on.
        class_token: the sublayers of a last layer that is computed for the class token alone, where
            smaller towers are read so (`Tower.reads_class_token`); None: all their layers are
            computed for all tokens. The dense tower's are in either case.
        wholes: pairs of the sum of a tower's parts and the measured seconds of the whole tower, all
            layers computed for all tokens; both rising, the last of the dense one, where they
            agree; without any, the sums are taken as they are.
    """

    layers: int
    outside: float
    noise: float
    conditions: Conditions
    class_token: SublayerSeconds | None = None
    wholes: tuple[tuple[float, float], ...] = ()

    def parts(self, heads: Sequence[int], neurons: Sequence[int], *sizes: Sequence[int]) -> float:
        """Seconds per image of a smaller tower's parts with these heads and neurons per layer.

        `sizes` are those of each layer's heads, as in `attention`.
        """
        if not len(heads) == len(neurons) == self.layers:
            raise ValueError(
                f"the table is of {self.layers} layers, got {len(heads)} numbers of heads and "
                f"{len(neurons)} of neurons"
            )
        attention, mlp = self.attention(heads, *sizes), self.mlp(neurons)
        if self.class_token is not None:
            attention[-1:] = self.class_token.attention(heads[-1:], *(size[-1:] for size in sizes))
            mlp[-1:] = self.class_token.mlp(neurons[-1:])
        return float(self.outside + attention.sum() + mlp.sum())

    def tower(self, heads: Sequence[int], neurons: Sequence[int], *sizes: Sequence[int]) -> float:
        """Predicted seconds per image of the whole smaller tower with these `parts`."""
        return float(np.interp(self.parts(heads, neurons, *sizes), *self._line_of_wholes))

    @cached_property
    def dense(self) -> float:
        """Seconds per image of the dense tower, which its parts add up to."""
        layer = self.attention(len(self.heads) - 1) + self.mlp(self.widths[-1])
        return float(self.outside + self.layers * layer)

    @property
    def least(self) -> float:
        """Predicted seconds of a tower without heads and neurons / the dense tower's."""
        return self.tower([0] * self.layers, [0] * self.layers) / self.dense

    def budget(self, latency_constraint: float) -> float:
        """What the `parts` may add up to, in seconds per image, under a latency constraint.

        The constraint is predicted seconds of the smaller tower / of the dense one, everything
        included, in (0, 1]: 0.5 means twice as fast. A tower with all layers and no unit in them
        may take more than that, see `least`.

        Raises:
            ValueError: the constraint is outside (0, 1].
        """
        if not 0 < latency_constraint <= 1:
            raise ValueError(f"a latency constraint is in (0, 1], got {latency_constraint:g}")
        return float(np.interp(latency_constraint * self.dense, *self._line_of_wholes[::-1]))

    @cached_property
    def _line_of_wholes(self) -> tuple[Floats, Floats]:
        """Sums of parts and the whole towers' seconds, both rising, in proportion at the ends.

        The dense tower's seconds stay as they were measured: what took longer is noise.
        """
        sums, seconds = np.array(self.wholes or [(self.dense,) * 2]).T
        whole = rising(np.minimum(seconds, seconds[-1]))
        return np.array([0, *sums, 2 * sums[-1]]), np.array([0, *whole, 2 * whole[-1]])

    def scaled(self, factor: float) -> "LatencyTable":
        """The same table with all seconds multiplied by `factor`."""
        own = self.class_token
        return replace(
            super().scaled(factor),
            outside=factor * self.outside,
            class_token=None if own is None else own.scaled(factor),
            wholes=tuple((factor * parts, factor * whole) for parts, whole in self.wholes),
        )

    def check(self, config: Config) -> None:
        """Raise `TowerError` unless the table is of towers of the shape that `config` describes."""
        shape, own = Shape.of(config, dense=True), self.conditions
        found = (
            self.layers, len(self.heads) - 1, self.widths[-1],
            own.tokens, own.hidden, own.head_dim,
        )  # fmt: skip
        expected = (
            len(shape.heads), shape.heads[0], shape.neurons[0],
            shape.tokens, shape.hidden, shape.head_dim,
        )  # fmt: skip
        names = ("layers", "heads", "neurons", "tokens", "hidden size", "head dimension")
        for name, one, other in zip(names, found, expected, strict=True):
            if one != other:
                raise TowerError(
                    f"the latency table is of another tower: its {name}: {one}, the tower's: "
                    f"{other}; measure a new one"
                )

    def save(self, path: str | Path) -> None:
        """Write the table as JSON."""
        text = json.dumps({"schema": SCHEMA, **asdict(self)}, indent=2, allow_nan=False)
        Path(path).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "LatencyTable":
        """Read a table.

        Raises:
            TowerError: the file isn't there, is no latency table, or one of another schema.
        """
        try:
            entries = json.loads(Path(path).read_text(encoding="utf-8"))
            schema = entries.pop("schema")
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise TowerError(f"{path} is not a latency table: {error!r}") from error
        if schema != SCHEMA:
            raise TowerError(
                f"{path} has schema {schema}, but this version reads {SCHEMA}: measure a new one"
            )
        try:
            own = entries["class_token"]
            if own is not None:
                entries["class_token"] = SublayerSeconds(**_tuples(own))
            return cls(
                **_tuples(entries, "wholes") | {"conditions": Conditions(**entries["conditions"])}
            )
        except (LookupError, TypeError) as error:
            raise TowerError(f"{path} is not a whole latency table: {error!r}") from error


def _tuples(entries: dict[str, Any], *pairs: str) -> dict[str, Any]:
    """Entries that JSON made lists of, as the tuples that they were."""
    flat = {name: tuple(entries[name]) for name in ("heads", "widths", "neurons", "head_sizes")}
    nested = {name: tuple(map(tuple, entries[name])) for name in ("sized", *pairs)}
    return entries | flat | nested
