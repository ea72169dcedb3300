"""How soon photos can be searched while they are indexed: a curve of agreement against minutes.

    python -m figures.indexing --report results/indexing/report.json

Drawn from the report of `evaluation.indexing`: what share of the finished results is found, what
share of the photos can be searched, and what share the full tower has encoded.
"""

from dataclasses import dataclass
from pathlib import Path

from commands.flags import ConfigOption, ReadPath, WrittenPath
from commands.run import main_of
from evaluation.command import run_command
from evaluation.reports.indexing.report import Indexing, open_indexing


@dataclass(frozen=True)
class IndexingFigureOptions(ConfigOption):
    """Draw what a search finds against minutes of indexing, from a report.

    Example: python -m figures.indexing --report results/indexing/report.json
    """

    report: ReadPath = Path("results/indexing/report.json")
    """a report as evaluation.indexing writes it"""
    output: WrittenPath | None = None
    """directory for indexing.png and indexing.svg (default: beside the report)"""
    overwrite: bool = False
    """replace pictures that are there already"""


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("figures.indexing"), IndexingFigureOptions, "figures.indexing")

import matplotlib.style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from figures.picture import refuse_existing, settle_layout, write_picture
from figures.style import INK, SETTINGS, series_style


def draw(report: Indexing) -> Figure:
    """Draw the figure."""
    minutes = [look.seconds / 60 for look in report.looks]
    lines = {
        f"of the finished top {report.k} is found": [look.agreement for look in report.looks],
        "of the photos can be searched": _shares(report, "images"),
        "of the photos encoded by the full tower": _shares(report, "encoded"),
    }
    with matplotlib.style.context(SETTINGS, after_reset=True):
        figure = Figure(figsize=(7.2, 4.4), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        for number, (label, values) in enumerate(lines.items()):
            style = series_style(number)
            axes.plot(
                minutes, values, label=label, color=style.color, marker=style.marker,
                linestyle=style.line, markersize=4, clip_on=False,
            )  # fmt: skip
        axes.set_xlabel("minutes since indexing began")
        axes.set_ylabel("share (%)")
        axes.set_xlim(left=0)
        axes.set_ylim(0, 103)
        axes.set_title(_title(report), color=INK, fontsize=11)
        figure.legend(loc="outside lower center", frameon=False, fontsize=10.5)
        settle_layout(figure)
    return figure


def main(options: IndexingFigureOptions) -> None:
    """Read the report, draw, save, and say where."""
    output = options.output or options.report.parent
    refuse_existing(output, "indexing", options.overwrite)
    write_picture(draw(open_indexing(options.report)), output, "indexing", options.overwrite)


def _shares(report: Indexing, name: str) -> list[float]:
    return [100 * getattr(look, name) / report.images for look in report.looks]


def _title(report: Indexing) -> str:
    first = report.looks[0]
    return (
        f"{report.images:,} photos, m = {report.m}\n"
        f"first answer after {first.first:.0f} s, over {first.images:,} photos"
    )
