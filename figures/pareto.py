"""Recall against measured speedup, drawn from reports: what a first stage costs and what it saves.

The last step of the project. Above, each first stage in front of the full tower; below, the same
first stages as ordinary searches, at the same speedups.

    python -m figures.pareto --report results/demo/report.json
"""

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from compress.command import ConfigOption, UserError, run_command
from evaluation.bootstrap import Interval
from evaluation.report import Report, ReportError, Result, Row
from figures.labels import Point, place_labels
from figures.style import FAINT, INK, SETTINGS, SeriesStyle, series_style

_LABEL_SIZE = 10.5


@dataclass(frozen=True)
class ParetoOptions(ConfigOption):
    """Draw Recall@k of cascades against their measured lifetime speedup, from reports.

    Example: python -m figures.pareto --report results/demo/report.json --k 10
    """

    report: tuple[Path, ...] = (Path("results/demo/report.json"),)
    """one or more reports, as evaluation.cascade writes them"""
    k: int = 10
    """draw Recall@k"""
    output: Path | None = None
    """directory for pareto.png and pareto.svg (default: beside the first report)"""
    overwrite: bool = False
    """replace pictures that are there already"""


@dataclass(frozen=True)
class Series:
    """The rows of one method in one report, by speedup."""

    name: str
    style: SeriesStyle
    rows: tuple[Row, ...]


def front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which points are on the Pareto front: no other is at least as good in both and not equal.

    Args:
        points: (speedup, recall), larger is better in both.

    Returns:
        One flag a point, in their order. Equal points are on it together.
    """
    return [
        not any(
            other[0] >= point[0] and other[1] >= point[1] and tuple(other) != tuple(point)
            for other in points
        )
        for point in points
    ]


def draw(reports: Sequence[Report], names: Sequence[str], k: int) -> Figure:
    """Draw the figure.

    Args:
        reports: at least one; each must hold Recall@k.
        names: one a report, to tell their series apart if there are several.
        k: of Recall@k.
    """
    with matplotlib.style.context(SETTINGS, after_reset=True):
        figure = Figure(figsize=(7.2, 7.0), layout="constrained")
        FigureCanvasAgg(figure)  # measures text, with no screen
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        series = _series(reports, names)
        above.set_title(_description(reports), color=INK, fontsize=11)
        _panel(above, reports, series, k, alone=False)
        _panel(below, reports, series, k, alone=True)
        above.set_ylabel(f"Recall@{k} (%)\ncascade")
        below.set_ylabel(f"Recall@{k} (%)\nfirst stage alone")
        below.set_xlabel(_speedup_label(reports))
        handles, texts = above.get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside lower center", ncols=4, frameon=False)
        figure.draw_without_rendering()  # the layout settles here
        for axes, alone in ((above, False), (below, True)):
            lines = [_corners(each, k, alone) for each in series]
            place_labels(axes, _points(reports, series, k, alone), lines, _LABEL_SIZE)
        figure.set_layout_engine("none")  # labels were placed for this layout
    return figure


def save(figure: Figure, directory: Path) -> list[Path]:
    """Write pareto.png and pareto.svg, each whole or not at all; the same figure, the same bytes.

    Raises:
        OSError: the directory can't be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    with matplotlib.style.context(SETTINGS, after_reset=True):
        for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            picture = io.BytesIO()
            figure.savefig(picture, format=kind, metadata=metadata)
            path = directory / f"pareto.{kind}"
            partial = path.with_name(f".{path.name}.partial")
            partial.write_bytes(picture.getvalue())
            partial.replace(path)
            written.append(path)
    return written


def main(options: ParetoOptions) -> None:
    """Read the reports, draw, save, and say where."""
    if not options.report:
        raise UserError("name at least one --report")
    output = options.output or options.report[0].parent
    for path in (output / "pareto.png", output / "pareto.svg"):
        if path.exists() and not options.overwrite:
            raise UserError(f"{path} exists already: name another --output or pass --overwrite")
    reports = [_load(path, options.k) for path in options.report]
    try:
        written = save(draw(reports, _names(options.report), options.k), output)
    except OSError as error:
        raise UserError(f"cannot write to {output}: {error.strerror}") from error
    for path in written:
        print(f"wrote {path}")


def _load(path: Path, k: int) -> Report:
    try:
        report = Report.load(path)
    except ReportError as error:
        raise UserError(str(error)) from error
    except OSError as error:
        raise UserError(
            f"--report {path}: {error.strerror}; make one with python -m evaluation.cascade"
        ) from error
    known = sorted(report.reference.alone.recall)
    if k not in known:
        raise UserError(f"--k {k}: {path} holds Recall@{', @'.join(map(str, known))} only")
    if not report.rows:
        raise UserError(f"--report {path} has no first stage to draw")
    return report


def _names(paths: Sequence[Path]) -> list[str]:
    """What tells reports apart: their directories' names, or whole paths where those agree."""
    short = [path.resolve().parent.name for path in paths]
    return short if len(set(short)) == len(short) else [str(path) for path in paths]


def _series(reports: Sequence[Report], names: Sequence[str]) -> list[Series]:
    found = []
    for report, name in zip(reports, names, strict=True):
        for method in dict.fromkeys(row.method for row in report.rows):
            rows = [row for row in report.rows if row.method == method]
            rows.sort(key=lambda row: row.lifetime_speedup.value)
            title = method if len(reports) == 1 else f"{method}, {name}"
            found.append(Series(title, series_style(len(found)), tuple(rows)))
    return found


def _result(row: Row, alone: bool) -> Result:
    return row.alone if alone or row.cascade is None else row.cascade


def _corners(series: Series, k: int, alone: bool) -> list[tuple[float, float]]:
    """The line of a series: (speedup, recall) of each row."""
    return [
        (row.lifetime_speedup.value, _result(row, alone).recall[k].value) for row in series.rows
    ]


def _panel(
    axes: Axes, reports: Sequence[Report], series: Sequence[Series], k: int, alone: bool
) -> None:
    for report in reports:
        recall = report.reference.alone.recall[k]
        speedup = report.reference.lifetime_speedup
        axes.axhline(recall.value, color=FAINT, linewidth=1.2, linestyle=(0, (1, 2)), zorder=1)
        _bars(axes, speedup, recall)
        label = "uncascaded tower" if report is reports[0] else None
        axes.plot(speedup.value, recall.value, "*", color=INK, markersize=14, label=label, zorder=4)
    for each in series:
        for row in each.rows:
            _bars(axes, row.lifetime_speedup, _result(row, alone).recall[k])
        axes.plot(
            *zip(*_corners(each, k, alone), strict=True),
            color=each.style.color,
            marker=each.style.marker,
            linestyle=each.style.line,
            markeredgecolor="white",
            label=each.name,
            zorder=3,
        )
    _ring_front(axes, reports, k, alone)
    axes.margins(x=0.08, y=0.1)


def _bars(axes: Axes, speedup: Interval, recall: Interval) -> None:
    """Both intervals as thin bars over the point, so that those smaller than a marker show too."""
    axes.hlines(recall.value, speedup.low, speedup.high, color=INK, linewidth=1.0, zorder=4)
    axes.vlines(speedup.value, recall.low, recall.high, color=INK, linewidth=1.0, zorder=4)


def _ring_front(axes: Axes, reports: Sequence[Report], k: int, alone: bool) -> None:
    """A ring around each first stage on the front of what was measured on the same queries."""
    groups: dict[tuple, list[Row]] = {}
    for report in reports:
        same = (report.model, report.corpus, report.split, report.captions, report.queries)
        groups.setdefault(same, []).extend([report.reference, *report.rows])
    ringed = []
    for rows in groups.values():
        points = [(row.lifetime_speedup.value, _result(row, alone).recall[k].value) for row in rows]
        best = zip(rows, points, front(points), strict=True)
        ringed += [point for row, point, on in best if on and row.cascade is not None]
    axes.plot(
        [speedup for speedup, _ in ringed],
        [recall for _, recall in ringed],
        "o",
        markersize=15,
        markerfacecolor="none",
        markeredgecolor=INK,
        markeredgewidth=1.1,
        label="on the front",
        zorder=5,
    )


def _points(
    reports: Sequence[Report], series: Sequence[Series], k: int, alone: bool
) -> list[Point]:
    """All that a panel shows, for labels to keep clear of; the uncascaded tower has no label."""
    named = [(row, row.constraint) for each in series for row in each.rows]
    points = []
    for row, text in [*((report.reference, "") for report in reports), *named]:
        speedup, recall = row.lifetime_speedup, _result(row, alone).recall[k]
        low, high = (speedup.low, recall.low), (speedup.high, recall.high)
        points.append(Point(speedup.value, recall.value, low, high, text))
    return points


def _description(reports: Sequence[Report]) -> str:
    if len(reports) > 1:
        return f"{len(reports)} reports"
    (report,) = reports
    text = (
        f"{report.model} on {report.corpus}, {report.images:,} images, "
        f"{report.queries:,} queries, m = {', '.join(map(str, report.m))}"
    )
    return textwrap.fill(text, 76)


def _speedup_label(reports: Sequence[Report]) -> str:
    assumed = {row.f_assumed for report in reports for row in report.rows}
    at = f" at f = {assumed.pop():g}" if len(assumed) == 1 and None not in assumed else ""
    return (
        f"measured lifetime speedup of the cascade{at} (×)\n"
        "bars: quartiles of the clock; 95 % interval of recall"
    )


if __name__ == "__main__":
    run_command(main, ParetoOptions, "figures.pareto")
