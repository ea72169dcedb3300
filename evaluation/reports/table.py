"""A report as a table, for the terminal and for Markdown: formatting only, no number is made here.

Both forms show the same cells. In the terminal a cascade's difference to the uncascaded tower
stands under its recall, so that fourteen numbers a row fit 120 columns. What it takes to resume is
shown only where something does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table

if TYPE_CHECKING:
    from evaluation.measuring.bootstrap import Interval
    from evaluation.reports.report import Report, Row

NOTHING = "–"


def terminal(report: Report) -> Table:
    """The report as a `rich` table, readable at 120 columns."""
    shown = Table(
        title=(
            f"{report.model} on {report.corpus} ({report.split}): "
            f"{report.images:,} images, {report.queries:,} caption queries, "
            f"m = {', '.join(map(str, report.m))}"
        ),
        caption=_caption(report),
        box=SIMPLE_HEAD,
        padding=(0, 0 if _resumes(report) else 1, 0, 0),
        show_edge=False,
    )
    for place, header in enumerate(_headers(report)):
        numeric = place >= 2
        side = "right" if numeric else "left"
        shown.add_column(header, justify=side, no_wrap=numeric, overflow="fold")
    for row in (report.reference, *report.rows):
        shown.add_row(*_cells(report, row))
    return shown


def markdown(report: Report) -> str:
    """The report as a GitHub table, ending with a newline."""
    rows = [_cells(report, row) for row in (report.reference, *report.rows)]
    return github_table(list(map(_whole, _headers(report))), rows)


def github_table(
    headers: Sequence[str], rows: Iterable[Sequence[str]], texts: Collection[int] = (0, 1)
) -> str:
    """A GitHub table, cells on one line each, ending with a newline.

    Args:
        headers: one a column.
        rows: a cell a column.
        texts: places of the columns that hold text; the others hold numbers.
    """
    rules = [":--" if place in texts else "--:" for place in range(len(headers))]
    lines = ([_one_line(cell) for cell in line] for line in (headers, rules, *rows))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _resumes(report: Report) -> bool:
    """Whether any row's full tower goes on from states."""
    return any(row.state_bytes is not None for row in report.rows)


def _headers(report: Report) -> list[str]:
    ks = "/".join(map(str, sorted(report.reference.alone.recall)))
    assumed = {row.f_assumed for row in report.rows}
    lifetime = "lifetime\nspeedup"
    if len(assumed) == 1 and None not in assumed:
        lifetime += f"\nf = {assumed.pop():g}"
    return [
        "method",
        "constraint",
        "tower\nMACs",
        "param-\neters",
        f"R@{ks}\nalone",
        f"R@{ks} cascade\n(difference to\nuncascaded)",
        "agree-\nment@10\nalone →\ncascade",
        "ms/\nimage",
        *(["bytes/\nimage"] if _resumes(report) else []),
        lifetime,
        "per-query\nspeedup",
        "f meas-\nured",
    ]


def _cells(report: Report, row: Row) -> list[str]:
    cascade, agreement = NOTHING, NOTHING
    if row.cascade is not None:
        differences = _joined(row.cascade.difference, "+.1f")
        cascade = f"{_joined(row.cascade.recall, '.1f')}\n({differences})"
        agreement = f"{row.alone.agreement.value:.1f}\n→ {row.cascade.agreement.value:.1f}"
    return [
        row.method,
        row.constraint,
        _magnitude(row.tower_macs),
        _magnitude(row.parameters),
        _joined(row.alone.recall, ".1f"),
        cascade,
        agreement,
        _milliseconds(report, row),
        *([_bytes(row)] if _resumes(report) else []),
        f"{row.lifetime_speedup.value:.2f}",
        NOTHING if row.query_speedup is None else f"{row.query_speedup:.2f}",
        NOTHING if row.f_measured is None else f"{row.f_measured:.3f}",
    ]


def _milliseconds(report: Report, row: Row) -> str:
    first = _three_digits(1000 * report.seconds(row).median)
    if row.resumed_seconds is None:
        return first
    return f"{first}\n+ {_three_digits(1000 * row.resumed_seconds.median)}\nresumed"


def _bytes(row: Row) -> str:
    return NOTHING if row.state_bytes is None else _magnitude(row.state_bytes)


def _joined(recalls: dict[int, Interval], form: str) -> str:
    return "/".join(f"{recalls[k].value:{form}}" for k in sorted(recalls))


def _magnitude(number: int) -> str:
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{_three_digits(number / size)} {unit}"
    return str(number)


def _three_digits(number: float) -> str:
    digits = 0 if number >= 100 else 1 if number >= 10 else 2
    return f"{number:.{digits}f}"


def _whole(header: str) -> str:
    """A header that was broken for the terminal, whole again."""
    for broken in ("param-\neters", "agree-\nment", "meas-\nured", "ms/\nimage", "bytes/\nimage"):
        header = header.replace(broken, broken.replace("-\n", "").replace("\n", ""))
    return header


def _one_line(cell: str) -> str:
    return cell.replace("\n", " ").replace("|", "\\|")


def _caption(report: Report) -> str:
    machine = report.machine
    skipped = f", {len(report.skipped)} unreadable images skipped" if report.skipped else ""
    return (
        f"seconds {'of the encoder only' if report.seconds_basis == 'encoder' else 'end to end'} "
        f"on {machine.cpu}, {machine.threads} threads, {machine.device}, {machine.dtype}{skipped}"
    )
