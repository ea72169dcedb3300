"""How pictures look: the same on every machine, readable in grey and at half size.

Series differ in marker, line and lightness, not only in colour.
"""

from dataclasses import dataclass

INK = "#222222"
FAINT = "#8a8a8a"

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
    """Colour, marker and line of one series."""

    color: str
    marker: str
    line: str


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


def series_style(number: int) -> SeriesStyle:
    """The style of the n-th series, from 0; they repeat after eight."""
    return _SERIES[number % len(_SERIES)]
