"""What a collection has cost after so many queries, fixed m beside adaptive m and the plain tower.

Drawn from reports of `evaluation.stream`: a panel for each.

    python -m figures.stream --report results/stream/report.json
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from commands.errors import UsageError
from commands.flags import ConfigOption, NotSplit, ReadPath, WrittenPath
from commands.run import main_of
from evaluation.command import run_command
from evaluation.reports.stream import Curve, Stream, open_stream


@dataclass(frozen=True)
class StreamFigureOptions(ConfigOption):
    """Draw a collection's cost over its lifetime against the number of queries.

    Example: python -m figures.stream --report results/stream/report.json
    """

    report: tuple[ReadPath, ...] = (Path("results/stream/report.json"),)
    """one or more reports, as evaluation.stream writes them; a panel for each"""
    titles: NotSplit[tuple[str, ...]] = ()
    """of the panels, one for each report (default: the numbers of images)"""
    output: WrittenPath | None = None
    """directory for stream.png and stream.svg (default: beside the first report)"""
    overwrite: bool = False
    """replace pictures that are there already"""

    def check(self) -> None:
        """Raise `UsageError` if no report is named, or not one title for each."""
        super().check()
        if not self.report:
            raise UsageError("name at least one --report")
        if self.titles and len(self.titles) != len(self.report):
            raise UsageError(f"{len(self.report)} reports need as many --titles")


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("figures.stream"), StreamFigureOptions, "figures.stream")

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import PercentFormatter

from figures.picture import refuse_existing, settle_layout, write_picture
from figures.style import FAINT, INK, SETTINGS, series_style

_PANEL = 4.2  # inches
_NAMES = {"fixed": "fixed m", "auto": "adaptive m"}


def draw(reports: Sequence[Stream], titles: Sequence[str] = ()) -> Figure:
    """Draw a panel for each report, at least one."""
    titles = titles or [f"{report.images:,} images" for report in reports]
    with matplotlib.style.context(SETTINGS, after_reset=True):
        width = max(6.0, _PANEL * len(reports))
        layout = ConstrainedLayoutEngine(wspace=0.08)
        figure = Figure(figsize=(width, 4.4), layout=layout)
        FigureCanvasAgg(figure)  # measures text, with no screen
        panels = figure.subplots(1, len(reports), sharey=True, squeeze=False)[0]
        for axes, report, title in zip(panels, reports, titles, strict=True):
            _panel(axes, report)
            axes.set_title(title, color=INK)
        panels[0].set_ylabel("seconds spent on encoding,\nas a share of the plain tower's")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=10.5
        )
        settle_layout(figure)
    return figure


def main(options: StreamFigureOptions) -> None:
    """Read the reports, draw, save, and say where."""
    output = options.output or options.report[0].parent
    refuse_existing(output, "stream", options.overwrite)
    reports = [open_stream(path) for path in options.report]
    write_picture(draw(reports, options.titles), output, "stream", options.overwrite)


def cost(
    report: Stream, encoded: Sequence[float], seconds: tuple[float, float] | None = None
) -> list[float]:
    """What was spent on encoding after each number of queries, over the plain tower's cost.

    `seconds` per image of both stages, by default those from the bytes of files.
    """
    first, last = seconds or report.seconds
    return [(first + last * number / report.images) / last for number in encoded]


def _panel(axes: Axes, report: Stream) -> None:
    axes.axhline(1, color=INK, linewidth=1.2, label="plain tower: all images by the full tower")
    for number, curve in enumerate(report.curves):
        _curve(axes, report, curve, number)
    first, last = report.seconds
    axes.axhline(first / last, color=FAINT, linewidth=1.2, linestyle=":", label="first stage alone")
    axes.set_xscale("log")
    axes.set_xlim(1, report.queries[-1])
    axes.set_xlabel("queries (Zipf)")
    axes.set_ylim(0, None)
    axes.yaxis.set_major_formatter(PercentFormatter(1))


def _curve(axes: Axes, report: Stream, curve: Curve, number: int) -> None:
    """The mean over streams, and the range of them."""
    style = series_style(number)
    costs = [cost(report, encoded) for encoded in curve.encoded]
    lows, highs = zip(*((min(at), max(at)) for at in zip(*costs, strict=True)), strict=True)
    means = cost(report, [share * report.images for share in report.shares(curve)])
    axes.fill_between(report.queries, lows, highs, color=style.color, alpha=0.2, linewidth=0)
    agreement = "" if curve.agreement is None else f", agreement {curve.agreement:.1%}"
    several = len(curve.encoded) > 1
    label = f"{_NAMES.get(curve.name, curve.name)}{', mean and range of streams' * several}"
    axes.plot(report.queries, means, color=style.color, linestyle=style.line, label=label)
    if report.encoder_seconds is not None:
        alone = [share * report.images for share in report.shares(curve)]
        alone = cost(report, alone, report.encoder_seconds)
        axes.plot(
            report.queries,
            alone,
            color=style.color,
            linewidth=0.9,
            linestyle=(0, (1, 2)),
            label=f"{_NAMES.get(curve.name, curve.name)}, counting encoders only",
        )
    axes.annotate(
        f"{_NAMES.get(curve.name, curve.name)}: {curve.m:.0f} a query{agreement}",
        (0.97, 0.25 - 0.07 * number),  # where no curve comes
        xycoords="axes fraction",
        fontsize=9,
        color=style.color,
        horizontalalignment="right",
    )
