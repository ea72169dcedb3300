"""What masking patches costs and what it saves: recall of the cascade, and its lifetime speedup.

Drawn from the report of `evaluation.masking`, a panel for each keep rule: Recall@1/5/10 on the
left axis against the share of patches masked, the measured speedup on a logarithmic one on the
right.

    python -m figures.masking --report results/masking/report.json
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from commands.errors import UsageError
from commands.flags import ConfigOption, ReadPath, WrittenPath
from commands.run import main_of
from evaluation.command import run_command
from evaluation.reports.record import RecordError
from evaluation.reports.report import Report, open_report
from evaluation.reports.row import FULL_TOWER, Result, Row
from figures.view import at_f, title


@dataclass(frozen=True)
class MaskingFigureOptions(ConfigOption):
    """Draw the cascade's recall and speedup against the share of patches masked.

    Example: python -m figures.masking --report results/masking/report.json
    """

    report: ReadPath = Path("results/masking/report.json")
    """a report as evaluation.masking writes it"""
    output: WrittenPath | None = None
    """directory for masking.png and masking.svg (default: beside the report)"""
    overwrite: bool = False
    """replace pictures that are there already"""


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("figures.masking"), MaskingFigureOptions, "figures.masking")

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullFormatter, NullLocator

from figures.picture import refuse_existing, settle_layout, write_picture
from figures.style import INK, SETTINGS, Look, series_style

_SPEED: Look = {"color": "#7a7a7a", "linewidth": 2.0, "marker": "o", "markersize": 3}
_BAND: Look = {"facecolor": "#dadada", "edgecolor": "none"}
_SPEED_TEXT = "#5c5c5c"
_REFERENCE: Look = {"color": INK, "linewidth": 1.0, "linestyle": (0, (1, 2))}
_APART = 0.016
"""Shares by which recalls at different k stand apart, for their intervals to be told apart."""
_SPEEDS = (0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 15, 20, 30, 50)
"""Speedups that get a tick where they are within the axis."""


@dataclass(frozen=True)
class KeepRule:
    """The rows of one keep rule, by the share of patches masked."""

    name: str
    rows: tuple[Row, ...]

    @property
    def shares(self) -> list[float]:
        """Of patches masked, ascending."""
        return list(map(_share, self.rows))

    @property
    def found(self) -> list[Result]:
        """What the cascade of each row finds."""
        return [row.cascade for row in self.rows if row.cascade]


def keep_rules(report: Report) -> list[KeepRule]:
    """The rows of a report by keep rule, in its order.

    Raises:
        RecordError: a row is no first stage at a share of patches masked.
    """
    for row in report.rows:
        if row.constraint_kind != "mask" or row.constraint_value is None or row.cascade is None:
            raise RecordError(
                f"{row.method} {row.constraint} is no share of patches masked: draw a report of "
                "evaluation.masking"
            )
    names = dict.fromkeys(row.method for row in report.rows)
    return [
        KeepRule(
            name,
            tuple(
                sorted(
                    (row for row in report.rows if row.method == name),
                    key=_share,
                )
            ),
        )
        for name in names
    ]


def _share(row: Row) -> float:
    """Of patches masked in a row that `keep_rules` has seen."""
    return row.constraint_value or 0.0


def draw(report: Report) -> Figure:
    """Draw the figure.

    Args:
        report: of `evaluation.masking`, with at least one row.

    Raises:
        RecordError: a row is no first stage at a share of patches masked.
    """
    rules = keep_rules(report)
    with matplotlib.style.context(SETTINGS, after_reset=True):
        figure = Figure(figsize=(7.2, 4.6), layout="constrained")
        FigureCanvasAgg(figure)  # measures text, with no screen
        figure.suptitle(title(report), color=INK, fontsize=11)
        panels = figure.subplots(1, len(rules), sharex=True, sharey=True, squeeze=False)[0]
        right = [axes.twinx() for axes in panels]
        for axes, speed, rule in zip(panels, right, rules, strict=True):
            _recall(axes, report.reference, rule)
            _speedup(speed, rule)
            axes.set_zorder(speed.get_zorder() + 1)  # recall is drawn over the band
            axes.patch.set_visible(False)
            axes.set_title(rule.name, color=INK)
            axes.set_xlabel("share of patches masked", fontsize=10.5)
        _scales(panels, right, report.reference, rules)
        panels[0].set_ylabel("Recall@k of the cascade (%)")
        right[-1].set_ylabel(f"lifetime speedup{at_f([report])} (×)", color=_SPEED_TEXT)
        figure.legend(
            **_meanings(report), loc="outside lower center", ncols=3, frameon=False, fontsize=11
        )
        settle_layout(figure)
    return figure


def main(options: MaskingFigureOptions) -> None:
    """Read the report, draw, save, and say where."""
    output = options.output or options.report.parent
    refuse_existing(output, "masking", options.overwrite)
    report = open_report(options.report, "evaluation.masking")
    if not report.rows:
        raise UsageError(f"--report {options.report} has no first stage to draw")
    write_picture(draw(report), output, "masking", options.overwrite)


def _recall(axes: Axes, reference: Row, rule: KeepRule) -> None:
    """The cascade's recalls with their intervals, and the full tower's as lines."""
    for number, k in enumerate(sorted(reference.alone.recall)):
        style = series_style(number)
        axes.axhline(reference.alone.recall[k].value, **_REFERENCE, zorder=2)
        found = [result.recall[k] for result in rule.found]
        places = [share + _APART * (number - 1) for share in rule.shares]
        axes.vlines(
            places, [interval.low for interval in found], [interval.high for interval in found],
            color=style.color, linewidth=1.2, zorder=3,
        )  # fmt: skip
        axes.plot(
            places, [interval.value for interval in found], color=style.color, marker=style.marker,
            linestyle=style.line, markersize=5.5, label=f"Recall@{k}", zorder=4,
        )  # fmt: skip


def _speedup(axes: Axes, rule: KeepRule) -> None:
    """The measured speedup, and between which bounds the clock's quartiles put it."""
    found = [row.lifetime_speedup for row in rule.rows]
    axes.fill_between(
        rule.shares,
        [interval.low for interval in found],
        [interval.high for interval in found],
        **_BAND,
        zorder=1,
    )
    axes.plot(
        rule.shares, [interval.value for interval in found], **_SPEED, label="speedup", zorder=2
    )


def _scales(
    panels: Sequence[Axes], right: Sequence[Axes], reference: Row, rules: Sequence[KeepRule]
) -> None:
    """The same scales in all panels; recall from 0, speedup logarithmic."""
    rows = [row for rule in rules for row in rule.rows]
    found = [reference.alone, *(result for rule in rules for result in rule.found)]
    highest = max(interval.high for result in found for interval in result.recall.values())
    panels[0].set_ylim(0, min(1.05 * highest, 100))
    panels[0].set_xlim(-0.05, max(0.9, *(max(rule.shares) for rule in rules)) + 0.05)
    panels[0].set_xticks([0, 0.3, 0.6, 0.9], ["0", "0.3", "0.6", "0.9"])
    for axes in panels:
        axes.grid(visible=False)  # it would lie over the speedup
    speeds = [
        bound for row in rows for bound in (row.lifetime_speedup.low, row.lifetime_speedup.high)
    ]
    low, high = min(speeds) / 1.1, max(speeds) * 1.1
    for axes in right:
        axes.set_yscale("log")
        axes.set_ylim(low, high)
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x")
        axes.spines.right.set_visible(True)
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_minor_formatter(NullFormatter())
        ticks = [speed for speed in _SPEEDS if low <= speed <= high]
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.tick_params(axis="y", labelright=axes is right[-1], colors=_SPEED_TEXT)


def _meanings(report: Report) -> dict[str, Any]:
    """What the legend says, in columns: recalls above all else."""
    ks = sorted(report.reference.alone.recall)
    recalls = [
        Line2D([], [], color=style.color, marker=style.marker, linestyle=style.line, markersize=5.5)
        for style in map(series_style, range(len(ks)))
    ]
    bar = Line2D([], [], color=INK, marker="|", markersize=12, linestyle="none")
    below = [Line2D([], [], **_REFERENCE), (Patch(**_BAND), Line2D([], [], **_SPEED)), bar]
    names = [FULL_TOWER, "speedup, and the clock's quartiles", "95 % interval"]
    columns = zip_longest(
        zip(recalls, (f"Recall@{k}" for k in ks), strict=True), zip(below, names, strict=True)
    )
    entries = [entry for column in columns for entry in column if entry]
    handles, labels = zip(*entries, strict=True)
    return {
        "handles": handles,
        "labels": labels,
        "handler_map": {tuple: HandlerTuple(ndivide=1)},
    }
