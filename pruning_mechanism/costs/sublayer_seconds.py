"""What the attention and MLP sublayers of one shape take in measured seconds, at every size.

What a latency table is made of: one for layers that are computed for all tokens and, where it is
known, one for a last layer that is computed for the class token alone.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from math import gcd
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.interpolate import RegularGridInterpolator
from scipy.optimize import isotonic_regression

Floats = npt.NDArray[np.float64]

LARGEST_STEP = 64
"""The largest multiple of neurons that hardware is asked whether it likes it."""
TOLERANCE = 0.03
"""Share of an MLP's seconds below which a difference is taken for noise."""


@dataclass(frozen=True, kw_only=True)
class SublayerSeconds:
    """Measured seconds per image of the sublayers of layers that have one dense shape.

    A sublayer's seconds include its layer norm and the addition to the residual stream.

    Attributes:
        heads: seconds of one attention sublayer with 0, 1, …, H heads.
        widths: the numbers of neurons whose seconds are known, ascending from 0 to all, F.
        neurons: seconds of one MLP sublayer for each of `widths`.
        head_sizes: the sizes of queries and keys, and of values, whose seconds are known, ascending
            to the dense one; none if no other's are.
        sized: seconds of one attention sublayer with all H heads whose queries and keys have the
            size of that row and whose values have that of the column.
    """

    heads: tuple[float, ...]
    widths: tuple[int, ...]
    neurons: tuple[float, ...]
    head_sizes: tuple[int, ...] = ()
    sized: tuple[tuple[float, ...], ...] = ()

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
        return rising(self.heads)

    @cached_property
    def _share_of_sizes(self) -> RegularGridInterpolator:
        """What is left of a head's seconds when its queries and keys, and its values, shrink."""
        sized = np.array(self.sized)
        for axis in (0, 1):
            sized = np.maximum.accumulate(sized, axis)
        least, dense = self._of_heads[0], sized[-1, -1]
        shares = np.clip((sized - least) / max(dense - least, np.finfo(float).tiny), 0, 1)
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

    def scaled(self, factor: float) -> Self:
        """The same with all seconds multiplied by `factor`."""
        return replace(
            self,
            heads=tuple(factor * seconds for seconds in self.heads),
            neurons=tuple(factor * seconds for seconds in self.neurons),
            sized=tuple(tuple(factor * seconds for seconds in row) for row in self.sized),
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
        line, found = widths[on_line], rising(seconds[on_line])
        slope = (found[-1] - found[-2]) / (line[-1] - line[-2])
        end = found[-1] + slope * (widths[-1] - line[-1])
        return np.append(line, widths[-1]), np.append(found, end)


def largest_step(neurons: int) -> int:
    """The largest power of two, at most 64, with eight multiples up to that number of neurons."""
    step = LARGEST_STEP
    while step > 1 and 8 * step > neurons:
        step //= 2
    return step


def rising(seconds: npt.ArrayLike) -> Floats:
    """The non-decreasing sequence closest to `seconds` in least squares."""
    found: Floats = isotonic_regression(np.asarray(seconds, dtype=np.float64)).x
    return found
