"""Rules at equal measured time as a table, for the terminal and for Markdown.

Both forms show the same cells; the best of each column at a share is bold.
"""

from collections.abc import Callable
from typing import TypeVar

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from evaluation.reports.equal_time.report import Comparison, Line
from evaluation.reports.table import NOTHING, github_table

Cell = TypeVar("Cell", str, Text)


def terminal(comparison: Comparison) -> Table:
    """The comparison as a `rich` table, readable at 120 columns, a section for each share."""
    shown = Table(
        title=comparison.reports[0].title,
        caption=_caption(comparison),
        box=SIMPLE_HEAD,
        show_edge=False,
    )
    for place, header in enumerate(_headers(comparison)):
        numeric = place >= 2
        shown.add_column(header, justify="right" if numeric else "left", overflow="fold")
    before = None
    for line in comparison.lines:
        if before is not None and line.share != before:
            shown.add_section()
        share = "" if line.share == before else f"{line.share:g}"
        shown.add_row(share, line.method, *_values(comparison, line, Text, _bold))
        before = line.share
    return shown


def markdown(comparison: Comparison) -> str:
    """The comparison as a GitHub table with lines of explanation below, ending with a newline."""
    rows = [
        [f"{line.share:g}", line.method, *_values(comparison, line, str, "**{}**".format)]
        for line in comparison.lines
    ]
    table = github_table(_headers(comparison), rows, texts=(1,))
    return f"{table}\n{comparison.reports[0].title}.\n{_caption(comparison)}.\n"


def _headers(comparison: Comparison) -> list[str]:
    return ["share of\nseconds", "method", *(measure.heading for measure in comparison.measures)]


def _bold(cell: str) -> Text:
    return Text(cell, style="bold")


def _values(
    comparison: Comparison, line: Line, plain: Callable[[str], Cell], bold: Callable[[str], Cell]
) -> list[Cell]:
    """A cell for each measure, the best in bold; equal to a decimal are the best together."""
    cells = []
    for value, best in zip(line.values, comparison.best(line.share), strict=True):
        if value is None:
            cells.append(plain(NOTHING))
        else:
            cells.append((bold if round(value, 1) == best else plain)(f"{value:.1f}"))
    return cells


def _caption(comparison: Comparison) -> str:
    report = comparison.reports[0]
    machines = dict.fromkeys(compared.machine.summary for compared in comparison.reports)
    resumed = any(
        row.state_bytes is not None for compared in comparison.reports for row in compared.rows
    )
    between = any(row.middle for compared in comparison.reports for row in compared.rows)
    return (
        f"share of seconds: the first stage's / the full tower's, {report.seconds_of}, "
        f"on {'; '.join(machines)}\n"
        "values between a method's neighbouring constraints are linear in the logarithm of "
        f"measured seconds; {NOTHING} where its rows don't reach\n"
        f"agreement@10 of the cascade, with {report.candidates} candidates: the share of the full "
        f"tower's top 10 that are among the first stage's top {report.m[0]}"
        + ("\n(where further stages follow: and among the top of each of these)" if between else "")
        + ("\n(where the full tower resumes: that it still has in its top 10)" if resumed else "")
    )
