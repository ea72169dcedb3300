"""Rules at equal measured time as a table, for the terminal and for Markdown: formatting only.

Both forms show the same cells; the best of each column at a share is bold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from evaluation.reports.table import NOTHING, github_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from evaluation.equal_time import Comparison, Line


def terminal(comparison: Comparison) -> Table:
    """The comparison as a `rich` table, readable at 120 columns, a section for each share."""
    shown = Table(
        title=_title(comparison), caption=_caption(comparison), box=SIMPLE_HEAD, show_edge=False
    )
    for place, header in enumerate(_headers(comparison)):
        numeric = place >= 2
        shown.add_column(header, justify="right" if numeric else "left", overflow="fold")
    before = None
    for line in comparison.lines:
        if before is not None and line.share != before:
            shown.add_section()
        share = "" if line.share == before else f"{line.share:g}"
        shown.add_row(share, line.method, *_values(comparison, line, _bold))
        before = line.share
    return shown


def markdown(comparison: Comparison) -> str:
    """The comparison as a GitHub table with lines of explanation below, ending with a newline."""
    rows = [
        [f"{line.share:g}", line.method, *_values(comparison, line, "**{}**".format)]
        for line in comparison.lines
    ]
    table = github_table(_headers(comparison), rows, texts=(1,))
    return f"{table}\n{_title(comparison)}.\n{_caption(comparison)}.\n"


def _headers(comparison: Comparison) -> list[str]:
    return ["share of\nseconds", "method", *(each.heading for each in comparison.measures)]


def _bold(cell: str) -> Text:
    return Text(cell, style="bold")


def _values(
    comparison: Comparison, line: Line, bold: Callable[[str], str | Text]
) -> list[str | Text]:
    """A cell for each measure, the best in bold; equal to a decimal are the best together."""
    cells: list[str | Text] = []
    for value, best in zip(line.values, comparison.best(line.share), strict=True):
        cell = NOTHING if value is None else f"{value:.1f}"
        cells.append(bold(cell) if value is not None and round(value, 1) == best else cell)
    return cells


def _title(comparison: Comparison) -> str:
    report = comparison.reports[0]
    return (
        f"{report.model} on {report.corpus} ({report.split}): {report.images:,} images, "
        f"{report.queries:,} caption queries"
    )


def _caption(comparison: Comparison) -> str:
    report = comparison.reports[0]
    m = ", ".join(map(str, report.m))
    basis = "of the encoder only" if report.seconds_basis == "encoder" else "end to end"
    machines = dict.fromkeys(
        f"{each.cpu}, {each.threads} threads, {each.device}, {each.dtype}"
        for each in (every.machine for every in comparison.reports)
    )
    resumed = any(row.state_bytes is not None for each in comparison.reports for row in each.rows)
    return (
        "share of seconds: of the first stage / the uncascaded tower's, "
        f"{basis}, on {'; '.join(machines)}\n"
        "between a method's neighbouring constraints: linear in the logarithm of measured seconds; "
        f"{NOTHING} where its rows don't reach\n"
        f"agreement@10 of the cascade is, with m = {m} candidates, the share of the uncascaded top "
        f"10 that are among the first stage's top {m}"
        + (
            "\n(where the full tower resumes: that it still has in its top 10 then)"
            if resumed
            else ""
        )
    )
