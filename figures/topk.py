"""How often the right class is among a stage's first k, beside the full tower's first choice.

Drawn from the report of `evaluation.zero_shot`, a panel for each task and a line for each stage:
where a stage's line is above the full tower's top-1, the full tower would have to look at no more
than so many of its classes.

    python -m figures.topk --report results/zero-shot/report.json
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from commands.flags import ConfigOption, ReadPath, WrittenPath
from commands.run import main_of
from evaluation.command import run_command
from evaluation.measuring.values import Interval
from evaluation.reports.row import FULL_TOWER
from evaluation.reports.zero_shot.report import TaskResult, ZeroShot, open_zero_shot


@dataclass(frozen=True)
class TopkOptions(ConfigOption):
    """Draw how often the right class is among a stage's first k, from a zero-shot report.

    Example: python -m figures.topk --report results/zero-shot/report.json
    """

    report: ReadPath = Path("results/zero-shot/report.json")
    """a report as evaluation.zero_shot writes it"""
    output: WrittenPath | None = None
    """directory for topk.png and topk.svg (default: beside the report)"""
    overwrite: bool = False
    """replace pictures that are there already"""


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("figures.topk"), TopkOptions, "figures.topk")

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator

from figures.picture import refuse_existing, settle_layout, write_picture
from figures.style import FAINT, INK, SETTINGS, Look, series_style

_COLUMNS = 3
_REFERENCE: Look = {"color": INK, "linewidth": 1.4, "linestyle": (0, (4, 2))}
_BAND: Look = {"facecolor": "#dcdcdc", "edgecolor": "none"}
_CHANCE: Look = {"color": FAINT, "linewidth": 1.2, "linestyle": (0, (1, 2))}
_APART = 1.035
"""Factor by which the points of stages stand apart, for their intervals to be told apart."""
_LETTERS = 11
_HANDLE = 7
"""Letters of the legend on an inch, and what a handle with its margins takes of them."""


def draw(report: ZeroShot) -> Figure:
    """Draw the figure: panels in rows of three."""
    columns = min(_COLUMNS, len(report.tasks))
    rows = -(-len(report.tasks) // columns)
    width = max(5.6, 0.4 + 2.9 * columns)
    meanings = _meanings(report, width)
    below = -(-len(meanings["labels"]) // meanings["ncols"])
    with matplotlib.style.context(SETTINGS, after_reset=True):
        figure = Figure(figsize=(width, 1.0 + 2.7 * rows + 0.25 * below), layout="constrained")
        FigureCanvasAgg(figure)  # measures text, with no screen
        panels = figure.subplots(rows, columns, sharey=True, squeeze=False).flatten()
        for number, (axes, task) in enumerate(zip(panels, report.tasks, strict=False)):
            _draw_task(axes, task)
            if number % columns == 0:
                axes.set_ylabel("top-k accuracy (%)")
            if number + columns >= len(report.tasks):
                axes.set_xlabel("k")
        for axes in panels[len(report.tasks) :]:
            axes.set_axis_off()
        _scale(list(panels), report.tasks)
        figure.legend(**meanings, loc="outside lower center", frameon=False, fontsize=10.5)
        settle_layout(figure)
    return figure


def main(options: TopkOptions) -> None:
    """Read the report, draw, save, and say where."""
    output = options.output or options.report.parent
    refuse_existing(output, "topk", options.overwrite)
    write_picture(draw(open_zero_shot(options.report)), output, "topk", options.overwrite)


def _draw_task(axes: Axes, task: TaskResult) -> None:
    """The stages' accuracies with their intervals, the full tower's top-1, and chance."""
    ks = sorted(task.full.top)
    reference = task.full.top[1]
    axes.axhspan(reference.low, reference.high, **_BAND, zorder=1)
    axes.axhline(reference.value, **_REFERENCE, zorder=2)
    every = np.geomspace(1, ks[-1])
    axes.plot(every, task.chance * every, **_CHANCE, zorder=2)
    for number, accuracy in enumerate(task.stages or (task.full,)):
        style = series_style(number)
        places = _apart(ks, number, len(task.stages))
        found = [accuracy.top[k] for k in ks]
        axes.vlines(
            places, [interval.low for interval in found], [interval.high for interval in found],
            color=style.color, linewidth=1.4, zorder=3,
        )  # fmt: skip
        axes.plot(
            places, [interval.value for interval in found], color=style.color, marker=style.marker,
            linestyle=style.line, markersize=6, zorder=4, clip_on=False,
        )  # fmt: skip
    axes.set_title(f"{task.name}\n{len(task.classes):,} classes", color=INK, fontsize=11)
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(ks, list(map(str, ks)))
    axes.set_xlim(ks[0] / 1.15, max(ks[-1], 3) * 1.15)


def _scale(panels: Sequence[Axes], tasks: Sequence[TaskResult]) -> None:
    """The same scale in all panels, from 0 to a little above all that is drawn."""
    shown = [interval for task in tasks for interval in (task.full.top[1], *_drawn(task))]
    highest = max(interval.high for interval in shown)
    panels[0].set_ylim(0, min(102, 1.08 * highest))


def _drawn(task: TaskResult) -> list[Interval]:
    """All that the lines of a task show."""
    return [found for accuracy in task.stages or (task.full,) for found in accuracy.top.values()]


def _apart(ks: Sequence[int], number: int, stages: int) -> list[float]:
    """Where the points of a stage stand: a little beside the others'."""
    return [k * _APART ** (number - (stages - 1) / 2) for k in ks]


def _meanings(report: ZeroShot, width: float) -> dict[str, Any]:
    """What the legend says, in as many columns as there is room for."""
    names = [stage.name for stage in report.stages[1:]] or [report.full_tower]
    styles = map(series_style, range(len(names)))
    lines = [
        Line2D([], [], color=style.color, marker=style.marker, linestyle=style.line, markersize=6)
        for style in styles
    ]
    handles = [
        *lines,
        (Patch(**_BAND), Line2D([], [], **_REFERENCE)),
        Line2D([], [], **_CHANCE),
        Line2D([], [], color=INK, marker="|", markersize=12, linestyle="none"),
    ]
    labels = [*names, f"top-1 of {report.full_tower} ({FULL_TOWER})", "chance", "95 % interval"]
    return {
        "handles": handles,
        "labels": labels,
        "ncols": _legend_columns(labels, width),
        "handler_map": {tuple: HandlerTuple(ndivide=1)},
    }


def _legend_columns(labels: Sequence[str], width: float) -> int:
    """As many columns, filled one after the other, as stand beside each other in a width."""
    for columns in range(len(labels), 1, -1):
        rows = -(-len(labels) // columns)
        starts = range(0, len(labels), rows)
        longest = [max(map(len, labels[start : start + rows])) for start in starts]
        if sum(longest) + _HANDLE * len(longest) <= _LETTERS * width:
            return len(longest)
    return 1
