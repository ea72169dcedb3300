"""The report of re-ranking with fewer tokens, by orders that know the query and orders that don't.

Data alone, and its table. Recalls and agreement are in percent, costs in MACs.
"""

from dataclasses import dataclass
from typing import ClassVar

from rich.box import SIMPLE_HEAD
from rich.table import Table

from evaluation.measuring.values import Interval, Machine
from evaluation.reports import record
from evaluation.reports.report import Searched
from evaluation.reports.row import FULL_TOWER, Result
from evaluation.reports.table import NOTHING, github_table, magnitude, with_interval

SCHEMA = 1
FILE = "report.json"
HEADERS = (
    "patches go on by", "after\nlayer", "kept", "MACs", "agreement@10\nre-ranked",
    "difference\nto merging", "R@1/5/10", "encodes/\nquery", "MACs/\nquery", "break-even\nqueries",
)  # fmt: skip


@dataclass(frozen=True)
class Reranked:
    """One way to encode the candidates with fewer tokens.

    Attributes:
        order: by what patches go on.
        by_text: whether that depends on the query, so that no embedding serves another query.
        known: whether the order is made of what only encoding without each patch tells: it can save
            nothing, and shows how much there is to know of single patches.
        after: layer, from 1, after whose attention patches are left out; None: from layer to layer.
        kept: patches that go on; None for merging and for the full tower.
        macs: of encoding one image, whole tower.
        macs_of_query: those among them that depend on the query.
        result: what the re-ranked candidates find, beside the full tower's.
        gain: agreement@10 minus that of merging at these MACs, in percentage points.
        encodes: encodes per query, over all queries measured.
        query_macs: MACs per query, over all queries measured.
        break_even: queries after which encoding each candidate once by the full tower has cost
            fewer MACs; None: not within those measured, or nothing depends on the query.
    """

    order: str
    by_text: bool
    known: bool
    after: int | None
    kept: int | None
    macs: int
    macs_of_query: int
    result: Result
    gain: Interval | None
    encodes: float
    query_macs: float
    break_even: int | None


@dataclass(frozen=True)
class TextConditioned(Searched, record.Saved):
    """One run.

    Attributes:
        command: the command line that made it.
        calibration: what contributions are predicted from, in words.
        reached: different images among the candidates of all queries.
        seed: for drawing calibration images and queries, and for the intervals.
        skipped: keys of the images that couldn't be read.
        rows: the full tower, then for each place and share merging and each order.
        machine: where it was computed.
        versions: of Python and packages.
        date: ISO 8601.
        schema: version of this form.
    """

    command: str
    calibration: str
    reached: int
    seed: int
    skipped: tuple[str, ...]
    rows: tuple[Reranked, ...]
    machine: Machine
    versions: dict[str, str]
    date: str
    schema: int = SCHEMA

    called: ClassVar = "report of re-ranking"
    version: ClassVar = SCHEMA


def terminal(report: TextConditioned) -> Table:
    """The report as a `rich` table."""
    shown = Table(
        title=_title(report), caption=_caption(report), box=SIMPLE_HEAD, padding=(0, 1, 0, 0),
        show_edge=False,
    )  # fmt: skip
    for place, header in enumerate(HEADERS):
        shown.add_column(header, justify="right" if place else "left", overflow="fold")
    for row in report.rows:
        shown.add_row(*_cells(row))
    return shown


def markdown(report: TextConditioned) -> str:
    """The report as a GitHub table with what it is of, ending with a newline."""
    headers = [header.replace("/\n", "/").replace("\n", " ") for header in HEADERS]
    table = github_table(headers, [_cells(row) for row in report.rows], (0,))
    return f"{_title(report)}\n\n{table}\n{_caption(report)}\n"


def _cells(row: Reranked) -> tuple[str, ...]:
    gain = NOTHING
    if row.gain is not None:
        gain = f"{row.gain.value:+.1f}\n({row.gain.low:+.1f} to {row.gain.high:+.1f})"
    return (
        row.order,
        NOTHING if row.after is None else str(row.after),
        NOTHING if row.kept is None else str(row.kept),
        magnitude(row.macs),
        NOTHING if row.order == FULL_TOWER else with_interval(row.result.agreement),
        gain,
        "/".join(f"{row.result.recall[k].value:.1f}" for k in sorted(row.result.recall)),
        f"{row.encodes:.2f}",
        magnitude(round(row.query_macs)),
        NOTHING if row.break_even is None else str(row.break_even),
    )


def _title(report: TextConditioned) -> str:
    return f"{report.title}, the full tower's first {report.m[0]} re-ranked"


def _caption(report: TextConditioned) -> str:
    skipped = f"; {len(report.skipped)} unreadable images skipped" if report.skipped else ""
    return (
        f"{report.reached:,} of the images are candidates of a query{skipped}; "
        "in brackets: 95 % intervals. MACs/query: what no query changes is computed once for an "
        "image; finding out effects that are known isn't counted. Break-even: from so many queries "
        "on, encoding each candidate once by the full tower takes fewer MACs"
    )
