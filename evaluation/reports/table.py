"""A report as a table, for the terminal and for Markdown: this module formats and computes nothing.

Both forms show the same cells. In the terminal a cascade's difference to the full tower stands
under its recall, so that a row fits 120 columns; where last stages run otherwise than the full
tower, MACs, parameters and the first stage's recall are left to Markdown. A column is shown where
it says something: what it takes to resume where something does; per-query speedup and f measured
where rows differ in them.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from rich.box import SIMPLE_HEAD
from rich.table import Table

from evaluation.measuring.values import Interval
from evaluation.reports.report import Report
from evaluation.reports.row import Middle, Row
from evaluation.reports.ways import Way, against, is_usual, runs_in, usual

NOTHING = "–"
_TEXTS = frozenset({"method", "constraint", "reads", "runs in", "reads,\nruns in"})
"""Headers of the columns that hold words."""


@dataclass(frozen=True)
class Column:
    """A column's header, broken for the terminal, and what it shows of a row.

    One that isn't `kept` gives way in the terminal where last stages need the room.
    """

    header: str
    cell: Callable[[Row], str]
    kept: bool = True


def terminal(report: Report) -> Table:
    """The report as a `rich` table, readable at 120 columns."""
    columns = [column for column in _columns(report) if column.kept or not _ends_otherwise(report)]
    shown = Table(
        title=f"{report.title}, {report.candidates}",
        caption=_caption(report),
        box=SIMPLE_HEAD,
        padding=(0, 0 if _resumes(report) else 1, 0, 0),
        show_edge=False,
    )
    for column in columns:
        numeric = column.header not in _TEXTS
        shown.add_column(
            column.header,
            justify="right" if numeric else "left",
            no_wrap=numeric,
            overflow="fold",
        )
    for row in (report.reference, *report.rows):
        shown.add_row(*(column.cell(row) for column in columns))
    return shown


def markdown(report: Report) -> str:
    """The report as a GitHub table and how its stages run, ending with a newline."""
    columns = _columns(report)
    rows = [[column.cell(row) for column in columns] for row in (report.reference, *report.rows)]
    texts = [place for place, column in enumerate(columns) if column.header in _TEXTS]
    shown = github_table([_whole(column.header) for column in columns], rows, texts)
    said = " ".join(_running(report))
    return f"{shown}\n{said}\n" if said else shown


def github_table(
    headers: Sequence[str], rows: Iterable[Sequence[str]], texts: Collection[int] = (0, 1)
) -> str:
    """A GitHub table, cells on one line each, ending with a newline.

    Args:
        headers: one per column.
        rows: one cell per column.
        texts: places of the columns that hold text; the others hold numbers.
    """
    rules = [":--" if place in texts else "--:" for place in range(len(headers))]
    lines = ([_one_line(cell) for cell in line] for line in (headers, rules, *rows))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _resumes(report: Report) -> bool:
    """Whether any row's full tower goes on from states."""
    return any(row.state_bytes is not None for row in report.rows)


def _columns(report: Report) -> list[Column]:
    """Those that say something of this report."""
    ks = "/".join(map(str, sorted(report.reference.alone.recall)))
    assumed = "" if report.f_assumed is None else f"\nf = {report.f_assumed:g}"
    otherwise, beside = _ends_otherwise(report), _beside(report)
    itself = "\n(with the\nlast itself)" if otherwise else ""
    columns = [
        (True, Column("method", lambda row: row.method)),
        (True, Column("constraint", lambda row: row.constraint)),
        *_ways(report),
        (True, Column("tower\nMACs", lambda row: magnitude(row.tower_macs), False)),
        (True, Column("param-\neters", lambda row: magnitude(row.parameters), False)),
        (True, Column(f"R@{ks}\nalone", lambda row: _joined(row.alone.recall, ".1f"), False)),
        (True, Column(f"R@{ks} cascade\n(difference to\nfull tower)", _cascade_recall)),
        (True, Column(f"agree-\nment@10\nalone →\ncascade{itself}", _agreement)),
        (True, Column(f"ms/\nimage{beside}", partial(_milliseconds, report))),
        (_resumes(report), Column("bytes/\nimage", _bytes)),
        (True, Column(f"lifetime\nspeedup{assumed}{beside}", partial(_lifetime, report))),
        (otherwise, Column(f"against\nthe last\nitself{beside}", partial(_own, report))),
    ]
    varying = (
        Column("per-query\nspeedup", _query_speedup, False),
        Column("f meas-\nured", _f_measured),
    )
    columns += [(len(_cells(report, column)) > 1, column) for column in varying]
    return [column for shown, column in columns if shown]


def _stages(report: Report) -> list[Way]:
    """All stages, the full tower among them."""
    return [report.reference, *(stage for row in report.rows for stage in (row, *row.behind))]


def _read_otherwise(report: Report) -> bool:
    """Whether any stage doesn't read files in full."""
    return any(stage.reads != "full" for stage in _stages(report))


def _run_otherwise(report: Report) -> bool:
    """Whether any stage doesn't run in torch in float32, as far as that is known."""
    return not all(map(is_usual, _stages(report)))


def _ends_otherwise(report: Report) -> bool:
    """Whether any cascade ends with another stage than what it is measured against."""
    return any(row.last is not None for row in report.rows)


def _ways(report: Report) -> list[tuple[bool, Column]]:
    """What stages read and run in, where that isn't what they do if they are told nothing."""
    reads, runs = _read_otherwise(report), _run_otherwise(report)

    def column(header: str, of: Callable[[Way], str]) -> Column:
        return Column(header, partial(_of_stages, report, of))

    return [
        (reads and not runs, column("reads", _reads)),
        (runs and not reads, column("runs in", _runs)),
        (reads and runs, column("reads,\nruns in", lambda way: f"{_reads(way)},\n{_runs(way)}")),
    ]


def _of_stages(report: Report, of: Callable[[Way], str], row: Row) -> str:
    """What is said of each of a row's stages, the last among them."""
    if row is report.reference:
        return of(row)
    return "\n→ ".join(map(of, (row, *row.middle, row.last or report.reference)))


def _reads(stage: Way) -> str:
    given = None if isinstance(stage, Middle) else stage.thumbnails_given
    return stage.reads if given is None else f"{stage.reads}\n(given)"


def _runs(stage: Way) -> str:
    return runs_in(stage).replace(" ", "\n") or NOTHING


def _cells(report: Report, column: Column) -> set[str]:
    """What a column shows of the first stages."""
    return {column.cell(row) for row in report.rows}


def _cascade_recall(row: Row) -> str:
    if row.cascade is None:
        return NOTHING
    recall, difference = row.cascade.recall, row.cascade.difference
    return f"{_joined(recall, '.1f')}\n({_joined(difference, '+.1f')})"


def _agreement(row: Row) -> str:
    if row.cascade is None:
        return NOTHING
    found = f"{row.alone.agreement.value:.1f}\n→ {row.cascade.agreement.value:.1f}"
    return found if row.last is None else f"{found}\n({row.last.agreement.value:.1f})"


def _own(report: Report, row: Row) -> str:
    """The lifetime speedup against the last stage by itself; the encoder's below."""
    if row.last is None:
        return NOTHING
    encoder = f"{row.last.encoder_speedup.value:.2f}"
    whole = f"{row.last.lifetime_speedup.value:.2f}"
    return whole if report.seconds_basis == "encoder" else f"{whole}\n({encoder})"


def _beside(report: Report) -> str:
    """What a header says of encoder-only numbers that stand in brackets below others."""
    return "\n(encoder)" if report.seconds_basis == "end to end" else ""


def _lifetime(report: Report, row: Row) -> str:
    """The lifetime speedup, and below it that of the encoder only, if that is something else."""
    whole, encoder = f"{row.lifetime_speedup.value:.2f}", report.speedup(row, "encoder")
    if report.seconds_basis == "encoder" or encoder is None:
        return whole
    return f"{whole}\n({encoder.value:.2f})"


def _milliseconds(report: Report, row: Row) -> str:
    """Of each stage the seconds that speedups are made of; end to end, the encoder's below."""

    def of(stage: Way) -> str:
        whole = three_digits(1000 * report.seconds(stage).median)
        if report.seconds_basis == "encoder":
            return whole
        return f"{whole}\n({three_digits(1000 * stage.encoder_seconds.median)})"

    first = of(row)
    if row.behind:
        return "\n→ ".join((first, *map(of, row.behind)))
    if row.resumed_seconds is None:
        return first
    return f"{first}\n+ {three_digits(1000 * row.resumed_seconds.median)}\nresumed"


def _bytes(row: Row) -> str:
    return NOTHING if row.state_bytes is None else magnitude(row.state_bytes)


def _query_speedup(row: Row) -> str:
    return NOTHING if row.query_speedup is None else f"{row.query_speedup:.2f}"


def _f_measured(row: Row) -> str:
    return NOTHING if row.f_measured is None else f"{row.f_measured:.3f}"


def _joined(recalls: dict[int, Interval], form: str) -> str:
    return "/".join(f"{recalls[k].value:{form}}" for k in sorted(recalls))


def magnitude(number: int) -> str:
    """Three digits and a unit, as in "1.23 G"."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{three_digits(number / size)} {unit}"
    return str(number)


def three_digits(number: float) -> str:
    """Three digits, or all of those before the point."""
    digits = 0 if number >= 100 else 1 if number >= 10 else 2
    return f"{number:.{digits}f}"


def with_interval(found: Interval) -> str:
    """A percentage to a tenth, and its interval in a second line."""
    return f"{found.value:.1f}\n({_bound(found.low)}–{_bound(found.high)})"


def _bound(value: float) -> str:
    """To a tenth of a percent; 0 and 100 as they are, which saves the table its width."""
    return f"{value:.1f}".removesuffix(".0") if value in (0, 100) else f"{value:.1f}"


def _whole(header: str) -> str:
    """A header that was broken for the terminal, whole again."""
    for broken in ("param-\neters", "agree-\nment", "meas-\nured", "ms/\nimage", "bytes/\nimage"):
        header = header.replace(broken, broken.replace("-\n", "").replace("\n", ""))
    return header


def _one_line(cell: str) -> str:
    return cell.replace("\n", " ").replace("|", "\\|")


def _caption(report: Report) -> str:
    reached = {_f_measured(row) for row in report.rows} - {NOTHING}
    notes = [f"f measured: {reached.pop()}"] if len(reached) == 1 else []
    if skipped := len(report.skipped):
        notes.append(f"{skipped} unreadable image{'s' if skipped > 1 else ''} skipped")
    stages = [stage for stage in _stages(report) if not isinstance(stage, Middle)]
    if given := {stage.thumbnails_given for stage in stages} - {None}:
        sizes = ", ".join(map(str, sorted(given, key=lambda pixels: pixels or 0)))
        notes.append(f"files have no thumbnails and were given some, {sizes} pixels long")
    seconds = f"seconds {report.seconds_of} on {report.machine.summary}"
    return "\n".join((seconds, *([", ".join(notes)] if notes else []), *_running(report)))


def _running(report: Report) -> list[str]:
    """What no column says of how stages run, and what they are measured against."""
    said = usual(_stages(report))
    if _ends_otherwise(report):
        said.append(f"Recall, agreement and speedups are against {against(report.reference)}.")
    return said
