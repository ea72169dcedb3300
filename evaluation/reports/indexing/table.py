"""The report of indexing as a table: this module formats and computes nothing."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from evaluation.reports.indexing.report import Indexing, Look
from evaluation.reports.table import github_table

_SHOWN = 12
_HEADERS = ("minutes", "can be searched", "by the full tower", "agreement", "ms a query")


def terminal(report: Indexing) -> Table:
    """The report as a `rich` table, with a few of its looks."""
    shown = Table(
        title=f"{report.images:,} photos, searched while they were indexed",
        caption="\n".join(_said(report)),
        box=SIMPLE_HEAD,
        show_edge=False,
    )
    for header in _HEADERS:
        shown.add_column(header, justify="right")
    for look in _few(report.looks):
        shown.add_row(*_cells(report, look))
    return shown


def markdown(report: Indexing) -> str:
    """The report as a GitHub table with all looks, ending with a newline."""
    rows = [_cells(report, look) for look in report.looks]
    return github_table(_HEADERS, rows, ()) + "\n" + "\n\n".join(_said(report)) + "\n"


def _cells(report: Indexing, look: Look) -> list[str]:
    return [
        f"{look.seconds / 60:.1f}",
        f"{look.images:,} ({look.images / report.images:.0%})",
        f"{look.encoded:,} ({look.encoded / report.images:.0%})",
        f"{look.agreement:.1f}",
        f"{1000 * look.searching:,.0f}",
    ]


def _said(report: Indexing) -> list[str]:
    rates, first = report.rates, report.looks[0]
    skipped = f", {report.skipped:,} skipped" if report.skipped else ""
    return [
        f"the first query was answered after {first.first:.1f} s, over {first.images:,} photos; "
        f"all {report.images:,} could be searched after {report.indexed.seconds / 60:.1f} min"
        f"{skipped}",
        f"{report.rate:,.0f} photos a second while {report.queries} queries were asked now and "
        f"then; decoding alone {rates.decoding:,.0f}, encoding alone {rates.encoding:,.0f} "
        f"({rates.photos:,} photos)",
        f"agreement: share of the finished state's top {report.k} that was found, in percent; "
        f"m = {report.m}",
        f"{report.nbytes / report.images:,.0f} bytes on disk for each photo",
        report.machine.summary,
    ]


def _few(looks: Sequence[Look]) -> list[Look]:
    """The first and the last, and others evenly between them."""
    if len(looks) <= _SHOWN:
        return list(looks)
    places = {round(at * (len(looks) - 1) / (_SHOWN - 1)) for at in range(_SHOWN)}
    return [looks[place] for place in sorted(places)]
