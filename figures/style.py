"""How pictures look: the same on every machine, readable in grey and at half size.

Series differ in marker, line and lightness, not only in colour.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

Look: TypeAlias = dict[str, Any]
"""How something is drawn, as keyword arguments of matplotlib."""

INK = "#222222"
FAINT = "#8a8a8a"
KEPT = "#0072B2"
REMOVED = "#e8e8e8"
SMALL = 8.5  # points: the smallest letters of a picture 7.2 inches wide

# Applied over matplotlib's own defaults, so that no matplotlibrc changes a picture.
SETTINGS = {
    "font.family": "DejaVu Sans",  # ships with matplotlib
    "font.size": 12,
    "axes.titlesize": 12,
    "axes.labelsize": 12,
    "legend.fontsize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "lines.markersize": 8,
    "savefig.dpi": 200,
    "svg.hashsalt": "clip-cascade",  # the same picture is the same file
}


@dataclass(frozen=True)
class SeriesStyle:
    """Colour, marker and line of one series; `line` and `fill` are as matplotlib takes them."""

    color: str
    marker: str
    line: Any
    width: float = 1.8
    fill: str = "full"


# Okabe and Ito's colours, which colour-blind readers can tell apart, dark and light in turn.
_SERIES = (
    SeriesStyle("#0072B2", "o", "-"),
    SeriesStyle("#E69F00", "s", "--"),
    SeriesStyle("#7A2E5D", "^", "-."),
    SeriesStyle("#56B4E9", "D", ":"),
    SeriesStyle("#B23A00", "v", (0, (5, 1, 1, 1, 1, 1))),
    SeriesStyle("#009E73", "P", (0, (8, 3))),
    SeriesStyle("#444444", "X", (0, (2, 1))),
    SeriesStyle("#CC79A7", "p", (0, (1, 3))),
)


# How the markers of a series' variants are filled.
_FILLS = ("none", "left", "bottom")


def series_style(number: int, variant: int = 0) -> SeriesStyle:
    """The style of the n-th series, from 0, and of its variants; 0 is the series itself.

    Variants keep the colour, marker and dashes; their lines are thin and their markers hollow or
    half filled. Series repeat after eight, variants after three.
    """
    style = _SERIES[number % len(_SERIES)]
    if not variant:
        return style
    return replace(style, width=1.1, fill=_FILLS[(variant - 1) % len(_FILLS)])


def log_from_zero(axes: Axes, values: Sequence[float], decades: int) -> None:
    """A logarithmic y axis that shows 0 as well: linear below the given decades of the largest.

    Args:
        axes: whose y axis.
        values: all that is drawn on it.
        decades: powers of ten that get a tick, down from the one nearest to the largest value.
    """
    top, bottom = max(values), min(0.0, *values)
    if top <= 0:
        axes.set_ylim(min(bottom, -0.05), 1)
        return
    highest = round(math.log10(top))
    lowest = highest - decades + 1
    axes.set_yscale("symlog", linthresh=10.0**lowest, linscale=0.7)
    powers = range(lowest, highest + 1)
    axes.set_yticks([0, *(10.0**power for power in powers)])
    axes.set_yticklabels(["0", *(f"$10^{{{power}}}$" for power in powers)])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(min(bottom, -0.15 * 10.0**lowest), 1.6 * max(top, 10.0**highest))
