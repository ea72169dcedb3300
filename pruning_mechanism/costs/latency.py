"""Latency tables: what a tower costs in measured seconds, on one machine, for every mask.

The second way of counting cost, beside `cost`'s MACs: allocation chooses sizes whose predicted
seconds keep a latency constraint. `latency_measurement` makes the tables.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.interpolate import RegularGridInterpolator
from scipy.optimize import isotonic_regression

from pruning_mechanism.cost import Shape
from pruning_mechanism.costs.conditions import Conditions
from pruning_mechanism.families import TowerError
from pruning_mechanism.protocols import Config

Floats = npt.NDArray[np.float64]

SCHEMA = 3
LARGEST_STEP = 64
"""The largest multiple of neurons that hardware is asked whether it likes it."""
TOLERANCE = 0.03
"""Share of an MLP's seconds below which a difference is taken for noise."""


@dataclass(frozen=True)
class LatencyTable:
    """Measured seconds per image of the parts of a tower whose layers have one dense shape.

    A sublayer's seconds include its layer norm and the addition to the residual stream. A narrow
    tower finds more of its weights and activations in the cache than its sublayers did among wide
    ones, so a few whole towers are measured too, and the sum of the parts is corrected along a line
    through them.

    Attributes:
        layers: number of layers.
        outside: seconds of all but the sublayers: patch embedding, outer norms, projection.
        heads: seconds of one attention sublayer with 0, 1, …, H heads.
        widths: the numbers of neurons whose seconds are known, ascending from 0 to all, F.
        neurons: seconds of one MLP sublayer for each of `widths`.
        noise: relative standard error of these entries, the median one.
        conditions: what it was measured on.
        head_sizes: the sizes of queries and keys, and of values, whose seconds are known, ascending
            to the dense one; none if no other's are.
        sized: seconds of one attention sublayer with all H heads whose queries and keys have the
            size of that row and whose values have that of the column.
        wholes: pairs of the sum of a tower's parts and the measured seconds of the whole tower,
            both rising, the last of the dense one, where they agree; without any, the sums are
            taken as they are.
    """

    layers: int
    outside: float
    heads: tuple[float, ...]
    widths: tuple[int, ...]
    neurons: tuple[float, ...]
    noise: float
    conditions: Conditions
    head_sizes: tuple[int, ...] = ()
    sized: tuple[tuple[float, ...], ...] = ()
    wholes: tuple[tuple[float, float], ...] = ()

    def attention(self, heads: npt.ArrayLike, *sizes: npt.ArrayLike) -> Floats:
        """Seconds per image of attention sublayers with these numbers of heads, same shape.

        `sizes` are those of the heads' queries and keys and of their values, of the same shape, if
        they aren't the dense ones. What each head adds to a sublayer without any is then multiplied
        by what such sizes leave of it where all heads have them.

        Non-decreasing in all three: where the measured seconds fall, which is noise, they
        are replaced by rising ones (isotonic regression; of sizes, the largest of those before).

        Raises:
            ValueError: no other sizes were measured.
        """
        seconds: Floats = self._of_heads[np.asarray(heads)]
        if not sizes:
            return seconds
        if not self.head_sizes:
            raise ValueError("the latency table has no seconds of heads of other sizes")
        none, shares = self._of_heads[0], self._share_of_sizes(np.stack(sizes, axis=-1))
        sized: Floats = none + (seconds - none) * shares
        return sized

    @cached_property
    def _of_heads(self) -> Floats:
        """Seconds of attention with 0, 1, …, H heads of the dense size, made rising."""
        return _rising(self.heads)

    @cached_property
    def _share_of_sizes(self) -> RegularGridInterpolator:
        """What is left of a head's seconds when its queries and keys, and its values, shrink."""
        rising = np.array(self.sized)
        for axis in (0, 1):
            rising = np.maximum.accumulate(rising, axis)
        least, dense = self._of_heads[0], rising[-1, -1]
        shares = np.clip((rising - least) / max(dense - least, np.finfo(float).tiny), 0, 1)
        shares[-1, -1] = 1.0
        return RegularGridInterpolator((self.head_sizes,) * 2, shares)

    def mlp(self, neurons: npt.ArrayLike) -> Floats:
        """Seconds per image of an MLP sublayer with these numbers of neurons, same shape.

        Multiples of `step` lie on a piecewise linear line through the measured ones, made rising
        as in `attention`. Other widths cost what the line says times the `penalty` of the largest
        power of two that divides them; so an odd width may cost more than a larger even one.
        """
        widths = np.asarray(neurons)
        penalty = np.vectorize(self.penalty.__getitem__, otypes=[float])
        seconds: Floats = self._line(widths) * penalty(np.gcd(widths, self.step))
        return seconds

    def parts(self, heads: Sequence[int], neurons: Sequence[int], *sizes: Sequence[int]) -> float:
        """Seconds per image of a tower's parts with these numbers of heads and neurons per layer.

        `sizes` are those of each layer's heads, as in `attention`.
        """
        if not len(heads) == len(neurons) == self.layers:
            raise ValueError(
                f"the table is of {self.layers} layers, got {len(heads)} numbers of heads and "
                f"{len(neurons)} of neurons"
            )
        attention = self.attention(heads, *sizes)
        return float(self.outside + attention.sum() + self.mlp(neurons).sum())

    def tower(self, heads: Sequence[int], neurons: Sequence[int], *sizes: Sequence[int]) -> float:
        """Predicted seconds per image of the whole tower with these `parts`."""
        return float(np.interp(self.parts(heads, neurons, *sizes), *self._line_of_wholes))

    @property
    def dense(self) -> float:
        """Seconds per image of the dense tower, which its parts add up to."""
        return self.parts([len(self.heads) - 1] * self.layers, [self.widths[-1]] * self.layers)

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
        rising = _rising(np.minimum(seconds, seconds[-1]))
        return np.array([0, *sums, 2 * sums[-1]]), np.array([0, *rising, 2 * rising[-1]])

    def scaled(self, factor: float) -> "LatencyTable":
        """The same table with all seconds multiplied by `factor`."""
        return replace(
            self,
            outside=factor * self.outside,
            heads=tuple(factor * seconds for seconds in self.heads),
            neurons=tuple(factor * seconds for seconds in self.neurons),
            sized=tuple(tuple(factor * seconds for seconds in row) for row in self.sized),
            wholes=tuple((factor * parts, factor * whole) for parts, whole in self.wholes),
        )

    @property
    def step(self) -> int:
        """The multiple of neurons that the line of `mlp` runs through: 64, less in tiny MLPs."""
        return largest_step(self.widths[-1])

    @cached_property
    def penalty(self) -> dict[int, float]:
        """Multiple → seconds of widths that are multiples of it, but not of twice it, / the line's.

        The multiples are the powers of two up to `step`, whose own penalty is 1; the median over
        the measured widths. A multiple that no measured width stands for has that of the next
        larger one.
        """
        over_line = np.divide(self.neurons, self._line(np.array(self.widths)))
        found, multiple = {self.step: 1.0}, self.step
        while multiple > 1:
            multiple //= 2
            ratios = [
                ratio
                for width, ratio in zip(self.widths, over_line, strict=True)
                if gcd(width, self.step) == multiple
            ]
            found[multiple] = float(np.median(ratios)) if ratios else found[2 * multiple]
        return found

    @property
    def preferred_multiple(self) -> int:
        """The multiple of neurons to keep widths at: the default of `--round-to`.

        The smallest power of two up to `step` of which no multiple is slower than the line through
        the multiples of `step` by more than noise: the `penalty` of it and of every larger one is
        at most 1 + `TOLERANCE`. Anything finer loses to its neighbours, anything coarser only takes
        freedom from the allocation. A table too noisy to tell gives a coarse multiple, as does one
        of multiples of `step` alone: an MLP of 32 neurons fewer than were best loses less than one
        whose width the hardware dislikes.
        """
        chosen = self.step
        if all(width % self.step == 0 for width in self.widths):
            return chosen
        while chosen > 1 and self.penalty[chosen // 2] <= 1 + TOLERANCE:
            chosen //= 2
        return chosen

    def _line(self, neurons: npt.NDArray[Any]) -> Floats:
        """Seconds of an MLP of any width if all were as easy as the multiples of `step`."""
        widths, seconds = self._knots
        line: Floats = np.interp(neurons, widths, seconds)
        return line

    @cached_property
    def _knots(self) -> tuple[npt.NDArray[np.int64], Floats]:
        """The measured multiples of `step` with rising seconds, drawn on to the dense width."""
        widths, seconds = np.array(self.widths), np.array(self.neurons)
        on_line = widths % self.step == 0
        line, rising = widths[on_line], _rising(seconds[on_line])
        slope = (rising[-1] - rising[-2]) / (line[-1] - line[-2])
        end = rising[-1] + slope * (widths[-1] - line[-1])
        return np.append(line, widths[-1]), np.append(rising, end)

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
            raise TowerError(f"{path} has schema {schema}, but this version reads {SCHEMA}")
        try:
            for name in ("heads", "widths", "neurons", "head_sizes"):
                entries[name] = tuple(entries[name])
            for name in ("sized", "wholes"):
                entries[name] = tuple(map(tuple, entries[name]))
            return cls(**entries | {"conditions": Conditions(**entries["conditions"])})
        except (LookupError, TypeError) as error:
            raise TowerError(f"{path} is not a whole latency table: {error!r}") from error


def largest_step(neurons: int) -> int:
    """The largest power of two, at most 64, with eight multiples up to that number of neurons."""
    step = LARGEST_STEP
    while step > 1 and 8 * step > neurons:
        step //= 2
    return step


def _rising(seconds: npt.ArrayLike) -> Floats:
    """The non-decreasing sequence closest to `seconds` in least squares."""
    rising: Floats = isotonic_regression(np.asarray(seconds, dtype=np.float64)).x
    return rising
