"""What models score against the milliseconds that they take: how model families are compared.

Drawn from reports of `evaluation.latency`: a point for each model, larger with its parameters, and
a line through those that no other is both faster and better than.

    python -m figures.latency --report results/latency/report.json
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from commands.errors import UsageError
from commands.flags import ConfigOption, Count, ReadPath, WrittenPath
from commands.run import main_of
from evaluation.command import run_command
from evaluation.measuring.values import Interval
from evaluation.reports.latency.report import Latency, Scored, open_latency
from evaluation.reports.table import magnitude
from figures.milliseconds import Seconds, Sides, View, texts_of


@dataclass(frozen=True)
class LatencyFigureOptions(ConfigOption):
    """Draw what models score against the milliseconds that they take, from latency reports.

    Example: python -m figures.latency --report results/latency/report.json --batch 32
    """

    report: tuple[ReadPath, ...] = (Path("results/latency/report.json"),)
    """one or more reports, as evaluation.latency writes them, of the same scores"""
    batch: Count | None = None
    """inputs that were embedded at once (default: the smallest of the first report)"""
    seconds: Seconds = "end to end"
    """from the bytes of files and from words, or from ready pixels and tokens"""
    side: Sides = "image"
    """what is waited for: an image, or an image and a text"""
    output: WrittenPath | None = None
    """directory for latency.png and latency.svg (default: beside the first report)"""
    overwrite: bool = False
    """replace pictures that are there already"""

    def check(self) -> None:
        """Raise `UsageError` if no report is named."""
        super().check()
        if not self.report:
            raise UsageError("name at least one --report")


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("figures.latency"), LatencyFigureOptions, "figures.latency")

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from figures.front import front
from figures.labels import Point, place_labels
from figures.picture import refuse_existing, settle_layout, write_picture
from figures.style import FAINT, INK, SETTINGS, Look, series_style

_LABEL_SIZE = 10.5
_LOGARITHMIC = 4.0
"""How many times the fastest the slowest model takes where the axis is logarithmic."""
_FEW = 8
"""Models that a panel of the usual height has room for."""
_SMALLEST, _LARGEST = 5.0, 15.0
"""Widths of markers in points: of a model without parameters, and of the largest."""
_FRONT: Look = {"linewidth": 1.4, "linestyle": (0, (4, 2))}
_MARKER: Look = {"alpha": 0.6, "markeredgewidth": 0.8, "markeredgecolor": "white"}
_WHISKER: Look = {"color": INK, "linewidth": 1.0}


@dataclass(frozen=True)
class Spot:
    """A model on one panel."""

    name: str
    milliseconds: Interval
    score: Interval
    width: float

    @property
    def point(self) -> Point:
        """For its label."""
        x, y = self.milliseconds, self.score
        return Point(x.value, y.value, (x.low, y.low), (x.high, y.high), self.name, self.width / 2)


def draw(reports: Sequence[Latency], view: View) -> Figure:
    """Draw the figure: a panel for each score, models of one machine alike.

    Args:
        reports: at least one, of the same scores; `check_drawable` says whether they can be drawn.
        view: which milliseconds.
    """
    machines = list(dict.fromkeys(report.machine.summary for report in reports))
    scored = reports[0].scored
    with matplotlib.style.context(SETTINGS, after_reset=True):
        crowded = max(0, sum(len(report.models) for report in reports) - _FEW)
        usual = 3.6 if len(scored) == 1 else 2.9
        height = 1.6 + (usual + 0.1 * min(crowded, 2 * _FEW)) * len(scored) + 0.25 * len(machines)
        figure = Figure(figsize=(7.2, height), layout="constrained")
        FigureCanvasAgg(figure)  # measures text, with no screen
        panels = figure.subplots(len(scored), 1, sharex=True, squeeze=False).flatten()
        drawn = []
        for number, axes in enumerate(panels):
            series = [_spots(reports, machine, number, view) for machine in machines]
            _panel(axes, series, scored[number])
            drawn.append((axes, series))
        _scale(panels[-1], [spot for series in drawn[0][1] for spot in series])
        panels[-1].set_xlabel(view.label)
        panels[0].set_title(_title(reports, machines), color=INK, fontsize=11, pad=12)
        figure.legend(
            **_meanings(reports, machines, view), loc="outside lower center", frameon=False
        )
        settle_layout(figure)  # labels are placed for this layout
        for axes, series in drawn:
            lines = [_corners(spots) for spots in series]
            points = [spot.point for spots in series for spot in spots]
            points.sort(key=lambda point: all((point.x, point.y) not in line for line in lines))
            place_labels(axes, points, lines, _LABEL_SIZE, leaders=True)
    return figure


def main(options: LatencyFigureOptions) -> None:
    """Read the reports, draw, save, and say where."""
    paths = list(dict.fromkeys(options.report))
    output = options.output or paths[0].parent
    refuse_existing(output, "latency", options.overwrite)
    reports = [open_latency(path) for path in paths]
    view = View(options.batch or min(reports[0].batches), options.seconds, options.side)
    for path, report in zip(paths, reports, strict=True):
        check_drawable(path, report, reports[0], view)
    write_picture(draw(reports, view), output, "latency", options.overwrite)


def check_drawable(path: Path, report: Latency, first: Latency, view: View) -> None:
    """Raise `UsageError` unless a report can be drawn in this view, beside the first one."""
    if not report.scored:
        raise UsageError(
            f"--report {path} has milliseconds alone: run evaluation.latency with --score "
            "retrieval or zero-shot"
        )
    if report.scored != first.scored:
        raise UsageError(
            f"--report {path} was scored on {_said(report)}, the first report on {_said(first)}: "
            "their models don't compare"
        )
    if view.batch not in report.batches:
        batches = " or ".join(map(str, report.batches))
        raise UsageError(f"--batch {view.batch}: {path} was measured at batch {batches}")
    if view.side == "image + text":
        texts = texts_of(report)
        for model in report.models:
            if (model.borrows or model.name) not in texts:
                raise UsageError(
                    f"--side: {path} has no seconds of the text tower of {model.name}; name "
                    f"{model.borrows} in --models of evaluation.latency as well"
                )


def _said(report: Latency) -> str:
    """What a report's scores are of."""
    return "; ".join(f"{one.label} ({one.split}, {one.images:,} images)" for one in report.scored)


def _spots(reports: Sequence[Latency], machine: str, number: int, view: View) -> list[Spot]:
    """The models measured on a machine, with their n-th score, from fast to slow."""
    most = _sizes(reports, view)[-1]
    spots = [
        Spot(
            model.name,
            view.milliseconds(model, texts_of(report)),
            model.scores[number],
            _width(view.parameters(model, texts_of(report)), most),
        )
        for report in reports
        if report.machine.summary == machine
        for model in report.models
    ]
    return sorted(spots, key=lambda spot: spot.milliseconds.value)


def _sizes(reports: Sequence[Latency], view: View) -> list[int]:
    """The parameters of all models, from small to large."""
    return sorted(
        view.parameters(model, texts_of(report)) for report in reports for model in report.models
    )


def _width(parameters: int, most: int) -> float:
    """The width of a marker in points: its area grows with the parameters."""
    share = parameters / max(1, most)
    return math.sqrt(_SMALLEST**2 + share * (_LARGEST**2 - _SMALLEST**2))


def _corners(spots: Sequence[Spot]) -> list[tuple[float, float]]:
    """The front: models that no other is at least as fast and as good as, from fast to slow."""
    found = front([(-spot.milliseconds.value, spot.score.value) for spot in spots])
    return [
        (spot.milliseconds.value, spot.score.value)
        for spot, on in zip(spots, found, strict=True)
        if on
    ]


def _panel(axes: Axes, series: Sequence[Sequence[Spot]], scored: Scored) -> None:
    """The models of each machine, their whiskers, and the front of each."""
    for number, spots in enumerate(series):
        style = series_style(number)
        axes.plot(*zip(*_corners(spots), strict=True), color=style.color, **_FRONT, zorder=2)
        for spot in spots:
            x, y = spot.milliseconds, spot.score
            axes.plot(
                x.value, y.value, style.marker, color=style.color, markersize=spot.width,
                **_MARKER, zorder=3,
            )  # fmt: skip
            axes.hlines(y.value, x.low, x.high, **_WHISKER, zorder=4)
            axes.vlines(x.value, y.low, y.high, **_WHISKER, zorder=4)
    axes.set_ylabel(f"{scored.measure} (%)\n{scored.name}")
    axes.margins(y=0.18)
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, 0.0), min(high, 102.0))


def _scale(axes: Axes, spots: Sequence[Spot]) -> None:
    """An axis from 0, or a logarithmic one where models are far from each other."""
    fastest = min(spot.milliseconds.low for spot in spots)
    slowest = max(spot.milliseconds.high for spot in spots)
    if slowest <= _LOGARITHMIC * fastest:
        axes.set_xlim(0, 1.15 * slowest)
        return
    beside = (slowest / fastest) ** 0.15
    axes.set_xscale("log")
    axes.set_xlim(fastest / beside, slowest * beside**1.5)
    wide = slowest / fastest > 100
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _title(reports: Sequence[Latency], machines: Sequence[str]) -> str:
    """What was measured where; the machines are in the legend if there are several."""
    names = ", ".join(dict.fromkeys(report.timed_on for report in reports))
    return f"timed on {names}" + (f"; {machines[0]}" if len(machines) == 1 else "")


def _meanings(reports: Sequence[Latency], machines: Sequence[str], view: View) -> dict[str, Any]:
    """What the legend says: machines, if there are several, sizes, front and whiskers."""
    several = len(machines) > 1
    handles = [_mark(number, 8.0) for number in range(len(machines) if several else 0)]
    labels = list(machines) if several else []
    sizes = _sizes(reports, view)
    for parameters in dict.fromkeys((sizes[0], sizes[-1])):
        handles.append(_mark(0, _width(parameters, sizes[-1]), FAINT if several else None))
        labels.append(f"{magnitude(parameters)} parameters ({view.side})")
    handles.append(Line2D([], [], color=INK if several else series_style(0).color, **_FRONT))
    labels.append("Pareto front")
    handles.append(Line2D([], [], color=INK, marker="+", markersize=12, linestyle="none"))
    labels.append("across: quartiles; up: 95 % interval")
    return {"handles": handles, "labels": labels, "ncols": 2, "fontsize": _LABEL_SIZE}


def _mark(number: int, width: float, color: str | None = None) -> Line2D:
    """The marker of the models of the n-th machine."""
    style = series_style(number)
    return Line2D(
        [], [], color=color or style.color, marker=style.marker, markersize=width,
        linestyle="none", **_MARKER,
    )  # fmt: skip
