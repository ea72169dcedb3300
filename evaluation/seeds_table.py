"""Several seeds as a table, for the terminal and for Markdown: formatting only, as in `table`.

In the terminal half widths stand under their means.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table

from evaluation.table import NOTHING

if TYPE_CHECKING:
    from evaluation.seeds import SeedsReport, SeedsRow, Spread


def terminal(summary: SeedsReport) -> Table:
    """The summary as a `rich` table, readable at 120 columns."""
    shown = Table(
        title=_title(summary),
        caption=_caption(summary),
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
    )
    for place, header in enumerate(_headers(summary)):
        numeric = place >= 2
        shown.add_column(header, justify="right" if numeric else "left", no_wrap=numeric)
    for row in summary.rows:
        shown.add_row(*_cells(row))
    return shown


def markdown(summary: SeedsReport) -> str:
    """The summary as a GitHub table with a line of explanation below, ending with a newline."""
    headers = _headers(summary)
    rules = [":--" if place < 2 else "--:" for place in range(len(headers))]
    lines = [headers, rules, *map(_cells, summary.rows)]
    table = "".join(f"| {' | '.join(map(_one_line, line))} |\n" for line in lines)
    return f"{table}\n{_title(summary)}.\n{_caption(summary)}.\n"


def _one_line(cell: str) -> str:
    return " ".join(cell.split())


def _title(summary: SeedsReport) -> str:
    return (
        f"{summary.model} on {summary.corpus} ({summary.split}): {summary.images:,} images, "
        f"{summary.queries:,} caption queries, m = {', '.join(map(str, summary.m))}, "
        f"seeds {', '.join(map(str, summary.seeds))}"
    )


def _caption(summary: SeedsReport) -> str:
    ratios = any(row.agreement_drop_ratio or row.cosine_ratio for row in summary.rows)
    compared = f"; ratios to {summary.reference} under the same constraint and seed"
    return (
        "mean ± half the width of the 95 % t interval over the seeds"
        f"{compared if ratios else ''}\n"
        f"calibrated on {'; '.join(summary.calibration)}\n"
        f"seconds on {'; '.join(summary.machines)}"
    )


def _headers(summary: SeedsReport) -> list[str]:
    recalls = [f"R@{k}\nalone" for k in _depths(summary.rows[0])]
    return [
        "method",
        "constraint",
        *recalls,
        "agreement@10\nalone",
        "1 - cos\nalone",
        "agreement@10\ncascade",
        "seconds to\ncompress",
        "drop in\nagreement\nratio",
        "1 - cos\nratio",
    ]


def _cells(row: SeedsRow) -> list[str]:
    return [
        row.method,
        row.constraint,
        *(_shown(row.recall[k], 1) for k in _depths(row)),
        _shown(row.agreement, 1),
        _shown(row.one_minus_cosine, 4),
        _shown(row.cascade_agreement, 1),
        _shown(row.compression_seconds, 1),
        _shown(row.agreement_drop_ratio, 2),
        _shown(row.cosine_ratio, 3),
    ]


def _depths(row: SeedsRow) -> list[int]:
    """The first and the last k of Recall@k; those between are in the JSON."""
    ks = sorted(row.recall)
    return list(dict.fromkeys([ks[0], ks[-1]]))


def _shown(spread: Spread | None, digits: int) -> str:
    if spread is None:
        return NOTHING
    return f"{spread.mean:.{digits}f}\n± {spread.half_width:.{digits}f}"
