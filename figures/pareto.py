"""Recall against measured speedup, drawn from reports: what a first stage costs and what it saves.

The last step of the project. Above, each first stage in front of the full tower; below, the same
first stages as ordinary searches, at the same speedups. `--y agreement --x macs` compares rules by
what they are asked for instead.

    python -m figures.pareto --report results/demo/report.json
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

from commands.errors import UsageError
from commands.flags import ConfigOption, Count, ReadPath, Unread, WrittenPath
from commands.run import main_of
from evaluation.command import run_command
from evaluation.measuring.values import Interval
from evaluation.reports.report import Report, names_of, open_report
from evaluation.reports.row import FULL_TOWER, Row
from evaluation.reports.ways import told_apart
from figures.view import Quality, Saving, View, title


@dataclass(frozen=True)
class ParetoOptions(ConfigOption):
    """Draw what first stages and cascades find against what they save, from reports.

    Example: python -m figures.pareto --report results/demo/report.json --k 10
    """

    report: tuple[ReadPath, ...] = (Path("results/demo/report.json"),)
    """one or more reports, as evaluation.cascade writes them"""
    y: Quality = "recall"
    """draw Recall@k, or agreement@10 with the full tower"""
    x: Saving = "speedup"
    """against measured lifetime speedup, or against MACs kept"""
    seconds: Literal["end to end", "encoder"] | None = None
    """seconds that speedups are made of (default: those of the first report)"""
    k: Count = 10
    """the k of Recall@k"""
    methods: tuple[str, ...] = ()
    """draw these methods only, in this order (default: all)"""
    output: WrittenPath | None = None
    """directory for pareto.png and .svg, or Y-X.png and .svg (default: beside the first report)"""
    overwrite: bool = False
    """replace pictures that are there already"""

    unread: ClassVar = (
        Unread(("k",), lambda options: options.y != "recall", "--y agreement"),
        Unread(("seconds",), lambda options: options.x != "speedup", "--x macs"),
    )

    def check(self) -> None:
        """Raise `UsageError` if no report is named."""
        super().check()
        if not self.report:
            raise UsageError("name at least one --report")


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("figures.pareto"), ParetoOptions, "figures.pareto")

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from figures.front import front
from figures.labels import Point, place_labels
from figures.picture import fix_layout, refuse_existing, write_picture
from figures.style import FAINT, INK, SETTINGS, Look, SeriesStyle, series_style

_LABEL_SIZE = 10.5
_FEW = 4  # series; more of them take their bars in their own colours, under the markers


@dataclass(frozen=True)
class Series:
    """The rows of one method in one report."""

    name: str
    style: SeriesStyle
    rows: tuple[Row, ...]


def draw(
    reports: Sequence[Report],
    names: Sequence[str],
    k: int,
    y: Quality = "recall",
    x: Saving = "speedup",
) -> Figure:
    """Draw the figure.

    Args:
        reports: at least one; each must hold Recall@k.
        names: one per report, to tell their series apart if there are several.
        k: of Recall@k.
        y: what is drawn upwards.
        x: what is drawn to the right; MACs fall, so that to the right is cheaper.
    """
    series = _series(reports, names)
    columns = _legend_columns(max(len(method.name) for method in series))
    lines = -(-(len(series) + 2) // columns)
    with matplotlib.style.context(SETTINGS, after_reset=True):
        figure = Figure(figsize=(7.2, 6.5 + 0.25 * lines), layout="constrained")
        FigureCanvasAgg(figure)  # measures text, with no screen
        tall_first = (3, 2) if y == "recall" else (2, 3)
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=tall_first)
        above.set_title(_description(reports), color=INK, fontsize=11, pad=12)
        panels = [(above, View(y, x, k, alone=False)), (below, View(y, x, k, alone=True))]
        for axes, view in panels:
            _panel(axes, reports, series, view)
            axes.set_ylabel(view.y_label())
        below.set_xlabel(panels[1][1].x_label(reports))
        if x == "macs":
            below.set_xlim(_within(below.get_xlim(), 1))
            below.invert_xaxis()
            for axes, _ in panels:
                axes.tick_params(axis="y", pad=9)  # the full tower stands on the axis
        handles, texts = above.get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside lower center", ncols=columns, frameon=False)
        fix_layout(figure)  # labels are placed for this layout
        for axes, view in panels:
            corners = [_corners(method, view) for method in series]
            place_labels(axes, _points(reports, series, view), corners, _LABEL_SIZE)
    return figure


def main(options: ParetoOptions) -> None:
    """Read the reports, draw, save, and say where."""
    output = options.output or options.report[0].parent
    usual = (options.y, options.x) == ("recall", "speedup")
    name = "pareto" if usual else f"{options.y}-{options.x}"
    refuse_existing(output, name, options.overwrite)
    reports = [_load(path, options) for path in options.report]
    if options.x == "speedup":
        seconds = options.seconds or reports[0].seconds_basis
        paired = zip(options.report, reports, strict=True)
        reports = [counted_in(path, report, seconds) for path, report in paired]
    figure = draw(reports, names_of(options.report), options.k, options.y, options.x)
    write_picture(figure, output, name, options.overwrite)


def _load(path: Path, options: ParetoOptions) -> Report:
    report = open_report(path)
    known = sorted(report.reference.alone.recall)
    if options.k not in known:
        raise UsageError(f"--k {options.k}: {path} holds Recall@{', @'.join(map(str, known))} only")
    if not report.rows:
        raise UsageError(f"--report {path} has no first stage to draw")
    return _of_methods(report, options.methods) if options.methods else report


def counted_in(path: Path, report: Report, seconds: str) -> Report:
    """The report with its speedups made of these seconds."""
    if seconds == report.seconds_basis:
        return report
    rows = []
    for row in (report.reference, *report.rows):
        speedup = report.speedup(row, seconds)
        if speedup is None:
            raise UsageError(
                f"--report {path} has speedups {report.seconds_of}, none of {seconds} seconds: "
                f'run evaluation.cascade with --seconds "{seconds}"'
            )
        rows.append(replace(row, lifetime_speedup=speedup))
    return replace(report, reference=rows[0], rows=tuple(rows[1:]), seconds_basis=seconds)


def _of_methods(report: Report, methods: Sequence[str]) -> Report:
    """The report with the rows of these methods alone, in their order."""
    found = {row.method for row in report.rows}
    if missing := [name for name in methods if name not in found]:
        raise UsageError(f"--methods {missing[0]}: the report has {', '.join(sorted(found))}")
    rows = [row for name in dict.fromkeys(methods) for row in report.rows if row.method == name]
    return replace(report, rows=tuple(rows))


def _series(reports: Sequence[Report], names: Sequence[str]) -> list[Series]:
    """One series per method, way to run and report; variants, as fisher+rescale, go alike.

    A rule that the full tower resumes from, that has further stages behind it, or whose stages were
    told how to run, is another than the rule by itself.
    """
    found = []
    variants: dict[tuple[str, bool, str, str], int] = {}
    for report, name in zip(reports, names, strict=True):
        names_of_rows = told_apart(report.rows)
        for method in dict.fromkeys(names_of_rows):
            paired = zip(names_of_rows, report.rows, strict=True)
            rows = tuple(row for called, row in paired if called == method)
            title = method if len(reports) == 1 else f"{method}, {name}"
            behind = rows[0].state_bytes is not None or bool(rows[0].middle)
            told = method if rows[0].is_told or method != rows[0].method else ""
            rule = rows[0].rule, behind, name, told
            changed = bool(rows[0].variant)
            number = variants[rule] = variants.get(rule, 0) + changed
            style = series_style(list(variants).index(rule), number if changed else 0)
            found.append(Series(title, style, rows))
    return found


def _legend_columns(letters: int) -> int:
    """How many names of so many letters, each with its line, fit beside each other."""
    return next((columns for columns, most in ((4, 11), (3, 28), (2, 34)) if letters <= most), 1)


def _corners(series: Series, view: View) -> list[tuple[float, float]]:
    """The line of a series: the spots of its rows, from left to right."""
    return sorted(map(view.spot, series.rows))


def _panel(axes: Axes, reports: Sequence[Report], series: Sequence[Series], view: View) -> None:
    for report in reports:
        saving, quality = view.saving(report.reference), view.quality(report.reference)
        axes.axhline(quality.value, color=FAINT, linewidth=1.2, linestyle=(0, (1, 2)), zorder=1)
        _bars(axes, saving, quality, INK, above=True)
        label = FULL_TOWER if report is reports[0] else None
        axes.plot(
            saving.value, quality.value, "*", color=INK, markersize=14, label=label, zorder=4,
            clip_on=False,
        )  # fmt: skip
    few = len(series) <= _FEW
    for method in series:
        color = INK if few else method.style.color
        for row in method.rows:
            _bars(axes, view.saving(row), view.quality(row), color, above=few)
        axes.plot(
            *zip(*_corners(method, view), strict=True),
            color=method.style.color,
            marker=method.style.marker,
            linestyle=method.style.line,
            linewidth=method.style.width,
            fillstyle=method.style.fill,
            markerfacecoloralt="white",
            markeredgecolor="white" if method.style.fill == "full" else method.style.color,
            label=method.name,
            zorder=3,
            clip_on=False,
        )
    _ring_front(axes, reports, view)
    axes.margins(x=0.08, y=0.1)
    axes.set_ylim(_within(axes.get_ylim(), 100))


def _within(limits: tuple[float, float], whole: float) -> tuple[float, float]:
    """The limits of an axis of shares, which has nothing beyond none and all of a `whole`."""
    low, high = limits
    return max(low, 0.0), min(high, whole)


def _bars(axes: Axes, saving: Interval, quality: Interval, color: str, above: bool) -> None:
    """Both intervals as thin bars; above the markers those that are smaller show as well."""
    style: Look = {"color": color, "linewidth": 1.0, "zorder": 4 if above else 2}
    axes.hlines(quality.value, saving.low, saving.high, **style)
    axes.vlines(saving.value, quality.low, quality.high, **style)


def _ring_front(axes: Axes, reports: Sequence[Report], view: View) -> None:
    """A ring around each first stage on the front of what was measured on the same queries."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    for report in reports:
        same = (report.model, report.corpus, report.split, report.captions, report.queries)
        groups.setdefault(same, []).extend([report.reference, *report.rows])
    ringed = []
    for rows in groups.values():
        best = zip(rows, front([view.worth(row) for row in rows]), strict=True)
        ringed += [view.spot(row) for row, on in best if on and row.cascade is not None]
    axes.plot(
        [x for x, _ in ringed],
        [y for _, y in ringed],
        "o",
        markersize=15,
        markerfacecolor="none",
        markeredgecolor=INK,
        markeredgewidth=1.1,
        label="on the front",
        zorder=5,
        clip_on=False,
    )


def _points(reports: Sequence[Report], series: Sequence[Series], view: View) -> list[Point]:
    """All that a panel shows, for labels to keep clear of; the full tower has no label."""
    named = [(row, row.constraint) for method in series for row in method.rows]
    points = []
    for row, text in [*((report.reference, "") for report in reports), *named]:
        saving, quality = view.saving(row), view.quality(row)
        low, high = (saving.low, quality.low), (saving.high, quality.high)
        points.append(Point(*view.spot(row), low, high, text))
    return points


def _description(reports: Sequence[Report]) -> str:
    if len(reports) > 1:
        return f"{len(reports)} reports"
    (report,) = reports
    return title(report)
