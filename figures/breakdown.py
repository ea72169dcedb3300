"""Milliseconds from the bytes of a photograph to its embedding, step by step, as stacked bars.

    python -m figures.breakdown --report results/breakdown/report.json

Drawn from reports of `evaluation.breakdown`: a bar for each way, parts for reading, decoding,
preparing and encoding, each alone; a line where it is as it runs, the steps overlapping where they
can. Where some bars are too short to show their parts, these come again below, enlarged.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from commands.errors import UsageError
from commands.flags import ConfigOption, Count, NotSplit, ReadPath, WrittenPath
from commands.run import main_of
from evaluation.command import run_command
from evaluation.reports.breakdown.report import STEPS, Breakdown, Way, open_breakdown
from evaluation.reports.table import three_digits


@dataclass(frozen=True)
class BreakdownFigureOptions(ConfigOption):
    """Draw the milliseconds from a photograph's bytes to its embedding, step by step.

    Example: python -m figures.breakdown --report camera/report.json web/report.json
    """

    report: tuple[ReadPath, ...] = (Path("results/breakdown/report.json"),)
    """one or more reports, as evaluation.breakdown writes them; a panel for each"""
    titles: NotSplit[tuple[str, ...]] = ()
    """of the panels (default: what the reports say of their files)"""
    threads: Count | None = None
    """ways that were timed with so many (default: the fewest of the first report)"""
    output: WrittenPath | None = None
    """directory for breakdown.png and breakdown.svg (default: beside the first report)"""
    overwrite: bool = False
    """replace pictures that are there already"""

    def check(self) -> None:
        """Raise `UsageError` if no report is named, or not as many titles."""
        super().check()
        if not self.report:
            raise UsageError("name at least one --report")
        if self.titles and len(self.titles) != len(self.report):
            raise UsageError(
                f"--titles: {len(self.titles)} for {len(self.report)} reports; give one for each"
            )


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("figures.breakdown"), BreakdownFigureOptions, "figures.breakdown")

import matplotlib.style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from figures.picture import refuse_existing, settle_layout, write_picture
from figures.style import FAINT, INK, SETTINGS, SMALL

_COLOURS = ("#E69F00", "#0072B2", "#56B4E9", "#7A2E5D")
"""Of the steps in their order: light and dark in turn, so that grey tells them apart too."""
_SHORT = 1 / 6
"""Bars up to this share of the longest come again, enlarged."""
_HEIGHT = 0.62  # of a bar, of the room that it has
_LINE = 0.4  # half the height of the line that shows what it takes as it runs
_INCH = 0.46  # of height for each bar
_WIDTH = 7.2  # inches
_LETTERS = 60  # of a line of a panel's title
_INSIDE = 0.075
"""Share of a panel's width that a part needs for its number to stand in it."""


@dataclass(frozen=True)
class Panel:
    """Bars on one axis.

    Attributes:
        title: above them; "" where they stand below another panel and enlarge it.
        ways: from top to bottom.
    """

    title: str
    ways: tuple[Way, ...]


def draw(reports: Sequence[Breakdown], titles: Sequence[str], threads: int) -> Figure:
    """Draw the figure.

    Args:
        reports: at least one, each with ways of that many threads.
        titles: one for each report.
        threads: which ways are drawn.
    """
    panels = [
        panel
        for report, title in zip(reports, titles, strict=True)
        for panel in panels_of(report, title, threads)
    ]
    rows = [len(panel.ways) for panel in panels]
    with matplotlib.style.context(SETTINGS, after_reset=True):
        titled = sum(panel.title.count("\n") + 1 for panel in panels if panel.title)
        height = _INCH * sum(rows) + 0.5 * len(panels) + 0.25 * titled + 0.75
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        FigureCanvasAgg(figure)  # measures text, with no screen
        grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=rows)
        for axes, panel in zip(grid.flatten(), panels, strict=True):
            _bars(axes, panel)
        timed = f"milliseconds per image, {threads} thread{'s' if threads > 1 else ''}"
        if any(way.faster for panel in panels for way in panel.ways):
            timed += "\n(×: times faster than plain transformers)"
        grid.flatten()[-1].set_xlabel(timed, fontsize=10.5)
        figure.legend(
            handles=_meanings(), loc="outside lower center", ncols=len(STEPS) + 1, frameon=False,
            fontsize=10,
        )  # fmt: skip
        settle_layout(figure)
    return figure


def panels_of(report: Breakdown, title: str, threads: int) -> list[Panel]:
    """All bars of a report, and below them those that are too short there, enlarged."""
    ways = tuple(way for way in report.ways if way.threads == threads)
    longest = max(map(length, ways))
    short = tuple(way for way in ways if length(way) <= _SHORT * longest)
    panels = [Panel(title, ways)]
    return [*panels, Panel("", short)] if short else panels


def length(way: Way) -> float:
    """Seconds that a bar needs room for: of all steps one after the other, or as it runs."""
    return max(sum(way.split.medians), way.end_to_end.median)


def main(options: BreakdownFigureOptions) -> None:
    """Read the reports, draw, save, and say where."""
    output = options.output or options.report[0].parent
    refuse_existing(output, "breakdown", options.overwrite)
    reports = [open_breakdown(path) for path in options.report]
    threads = options.threads or min(reports[0].threads)
    for path, report in zip(options.report, reports, strict=True):
        if threads not in report.threads:
            timed = " or ".join(map(str, report.threads))
            raise UsageError(f"--threads {threads}: {path} was measured with {timed}")
    described = (textwrap.fill(report.files.described, _LETTERS) for report in reports)
    titles = options.titles or tuple(described)
    write_picture(draw(reports, titles, threads), output, "breakdown", options.overwrite)


def _bars(axes: Axes, panel: Panel) -> None:
    """A bar for each way, with what it takes as it runs behind it."""
    longest = 1000 * max(map(length, panel.ways))
    for place, way in enumerate(panel.ways):
        _parts(axes, place, way, _INSIDE * longest)
        whole = 1000 * way.end_to_end.median
        axes.vlines(
            whole, place - _LINE, place + _LINE, color=INK, linewidth=1.4,
            path_effects=[withStroke(linewidth=3, foreground="white")],
        )  # fmt: skip
        axes.text(
            1000 * length(way) + 0.012 * longest, place, _behind(way), va="center", color=INK,
            fontsize=SMALL,
        )  # fmt: skip
    axes.set_yticks(range(len(panel.ways)), [_named(way) for way in panel.ways])
    axes.set_ylim(len(panel.ways) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0, labelsize=9.5)
    axes.tick_params(axis="x", labelsize=9.5)
    axes.grid(visible=False, axis="y")
    axes.set_axisbelow(True)
    axes.set_xlim(0, 1.28 * longest)
    if panel.title:
        axes.set_title(panel.title, loc="left", fontsize=10.5, color=INK)
    else:
        axes.set_title("the short ones, enlarged", loc="left", fontsize=9.5, color=FAINT)


def _parts(axes: Axes, place: int, way: Way, least: float) -> None:
    """The steps one after the other, with a number in each that has `least` milliseconds."""
    left = 0.0
    for step, seconds in enumerate(way.split.medians):
        width = 1000 * seconds
        axes.barh(place, width, _HEIGHT, left, color=_COLOURS[step], edgecolor="white",
                  linewidth=0.5)  # fmt: skip
        if width > least:
            axes.text(
                left + width / 2, place, three_digits(width), ha="center", va="center",
                color="white" if step % 2 else INK, fontsize=SMALL,
            )  # fmt: skip
        left += width


def _named(way: Way) -> str:
    """What stands beside a bar: its name, and in a second line what it reads and runs in."""
    return f"{way.name}\n{way.reads}, {way.runtime} {way.dtype}"


def _behind(way: Way) -> str:
    """Milliseconds as it runs, and how many times faster that is than plain transformers."""
    whole = f"{three_digits(1000 * way.end_to_end.median)} ms"
    if way.faster is None or way.role == "plain":
        return whole
    return f"{whole}, {three_digits(way.faster.value)} ×"


def _meanings() -> list[Artist]:
    """What the legend says."""
    steps = [Patch(facecolor=colour, label=step)
             for step, colour in zip(STEPS, _COLOURS, strict=True)]  # fmt: skip
    line = Line2D([], [], color=INK, marker="|", markersize=13, markeredgewidth=1.4,
                  linestyle="none", label="as it runs")  # fmt: skip
    return [*steps, line]
