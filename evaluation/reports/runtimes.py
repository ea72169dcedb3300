"""Towers in several runtimes: seconds, and how much of embeddings and results each keeps.

Data alone, as `evaluation.reports.latency.report`: no module that this one imports needs torch.
Cosines and agreement are with the same tower in torch, float32.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import ClassVar

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table

from evaluation.measuring.values import Machine, Timing
from evaluation.profiling.groups import Shares
from evaluation.reports import record
from evaluation.reports.record import RecordError
from evaluation.reports.table import NOTHING, github_table, three_digits

SCHEMA = 2
FILE = "report.json"
REFERENCE = ("torch", "float32")
SHARES = tuple(field.name for field in fields(Shares))


@dataclass(frozen=True)
class Kept:
    """What a runtime keeps of a tower's embeddings and results.

    Attributes:
        cosine: mean cosine to torch's float32 embeddings.
        least: the least of them.
        agreement: share of torch's float32 top 10 that is in its own, in percent.
        with_full: share of the full tower's top 10 that is in its own, in percent; None: there is
            no full tower.
        in_cascade: share of the full tower's top 10 among its first 50, in percent: agreement@10
            of a cascade that it is the first stage of.
    """

    cosine: float
    least: float
    agreement: float
    with_full: float | None
    in_cascade: float | None


@dataclass(frozen=True)
class RuntimeRow:
    """A tower in one runtime and type.

    Attributes:
        tower: its name.
        runtime: its name.
        dtype: what it computes in.
        threads: of the CPU.
        encoder: seconds an image from ready pixels.
        end_to_end: seconds an image from the bytes of the file.
        kept: of embeddings and results.
        rounded: in 8 bits by torch, products that are.
        left: in 8 bits by torch, other products of the layers, in bfloat16.
        teraflops: 10¹² multiplications and additions a second of the encoder, by `macs`.
        kernels: what the encoder's time goes to; None: it wasn't asked, or nobody knows.
    """

    tower: str
    runtime: str
    dtype: str
    threads: int
    encoder: Timing
    end_to_end: Timing
    kept: Kept
    rounded: int = 0
    left: int = 0
    teraflops: float | None = None
    kernels: Shares | None = None


@dataclass(frozen=True)
class Refusal:
    """Why a tower isn't there in one runtime and type."""

    tower: str
    runtime: str
    dtype: str
    why: str


@dataclass(frozen=True)
class Runtimes(record.Saved):
    """One run.

    Attributes:
        command: the command line that made it.
        models: the towers.
        full: the full tower, if there is one.
        searched: the corpus and its split.
        images: that were searched.
        queries: that they were searched by.
        batch: images embedded at once.
        rows: tower by tower and by number of threads, each with torch in float32 first.
        refused: what isn't there, and why.
        machine: where it was measured.
        versions: of Python and packages.
        date: ISO 8601.
        schema: version of this form.
    """

    command: str
    models: tuple[str, ...]
    full: str | None
    searched: str
    images: int
    queries: int
    batch: int
    rows: tuple[RuntimeRow, ...]
    refused: tuple[Refusal, ...]
    machine: Machine
    versions: dict[str, str]
    date: str
    schema: int = SCHEMA

    called: ClassVar = "report of runtimes"
    version: ClassVar = SCHEMA

    def __post_init__(self) -> None:
        """Refuse a report without what all others are compared with."""
        measured = {(row.tower, row.threads) for row in self.rows}
        if not measured or measured - set(_references(self.rows)):
            raise RecordError("a report of runtimes has torch in float32 for each of its towers")


def _references(rows: tuple[RuntimeRow, ...]) -> dict[tuple[str, int], RuntimeRow]:
    """The rows that others are compared with, by tower and threads."""
    return {(row.tower, row.threads): row for row in rows if (row.runtime, row.dtype) == REFERENCE}


def terminal(report: Runtimes) -> Group:
    """The report as `rich` tables."""
    return Group(*(_terminal(table) for table in _tables(report)))


def _terminal(table: "_Shown") -> Table:
    shown = Table(caption=table.caption, box=SIMPLE_HEAD, show_edge=False)
    for place, header in enumerate(table.headers):
        shown.add_column(header, justify="right" if place in table.numbers else "left")
    for row in table.rows:
        shown.add_row(*row)
    return shown


def markdown(report: Runtimes) -> str:
    """The report as GitHub tables, with what it was measured on, ending with a newline."""
    parts = [f"{', '.join(report.models)} in several runtimes\n"]
    for table in _tables(report):
        left = tuple(set(range(len(table.headers))) - set(table.numbers))
        parts.append(f"{github_table(table.headers, table.rows, left)}\n{table.caption}\n")
    return "\n".join(parts)


@dataclass(frozen=True)
class _Shown:
    """A table; `numbers` are the columns that hold some."""

    headers: list[str]
    rows: list[tuple[str, ...]]
    numbers: range
    caption: str


def _tables(report: Runtimes) -> list[_Shown]:
    """Seconds and what is kept; then, if it is known, what the seconds go to."""
    headers = list(_headers(report))
    found = [_Shown(headers, list(_rows(report)), _numbers(report), caption(report))]
    watched = [row for row in report.rows if row.kernels is not None]
    if watched:
        headers = ["tower", "runtime", "dtype", "threads", "images/s", "TFLOP/s"]
        headers += [f"{group} %" for group in SHARES]
        rows = list(map(_time_spent, watched))
        found.append(_Shown(headers, rows, range(3, len(headers)), _KERNELS_CAPTION))
    return found


_KERNELS_CAPTION = """TFLOP/s: twice the tower's MACs by the encoder's seconds; they count the last
layer for all tokens, also where it is computed for one
what the encoder's time goes to: products of matrices, attention, norms and all else that is
elementwise, copies; idle: no kernel runs"""


def _time_spent(row: RuntimeRow) -> tuple[str, ...]:
    """What the second table shows of a row."""
    spent = [getattr(row.kernels, group) for group in SHARES]
    return (
        row.tower,
        row.runtime,
        row.dtype,
        str(row.threads),
        three_digits(1 / row.encoder.median),
        NOTHING if row.teraflops is None else three_digits(row.teraflops),
        *(f"{100 * share:.0f}" for share in spent),
    )


def caption(report: Runtimes) -> str:
    """What was measured on what, a line each."""
    device, cpu = report.machine.device, report.machine.cpu
    lines = [
        f"runtimes of a tower timed in turn, batches of {report.batch}, on "
        f"{cpu if device == 'cpu' else f'{device}, files read by {cpu}'}",
        f"{report.images:,} images of {report.searched}, {report.queries:,} queries; agreement@10 "
        "and cosine with the same tower in torch, float32",
        "images/s: encoder alone",
    ]
    if any(row.rounded for row in report.rows):
        lines.append("in 8 bits: so many of the products of the layers, the others in bfloat16")
    if report.full:
        lines.append(f"cascade: agreement@10 with {report.full} of a cascade that hands it 50")
    return "\n".join(lines)


Cell = Callable[[RuntimeRow, float], str]
"""Shows something of a row, given torch's seconds an image in float32."""


def _columns(report: Runtimes) -> tuple[tuple[str, Cell], ...]:
    """The columns that hold numbers: header, and what it shows of a row."""
    by_core = report.machine.device == "cpu"
    full = report.full
    eight = any(row.rounded for row in report.rows)
    return (
        ("threads", lambda row, _: str(row.threads)),
        ("ms/image, encoder", lambda row, _: three_digits(1000 * row.encoder.median)),
        ("times as fast", lambda row, plain: f"{plain / row.encoder.median:.2f}"),
        ("ms/image, from bytes", lambda row, _: three_digits(1000 * row.end_to_end.median)),
        ("images/s", lambda row, _: three_digits(1 / row.encoder.median)),
        *((("images/s/core", _by_core),) if by_core else ()),
        ("cosine", lambda row, _: f"{row.kept.cosine:.6f}"),
        ("least", lambda row, _: f"{row.kept.least:.5f}"),
        ("agreement@10", lambda row, _: f"{row.kept.agreement:.1f}"),
        *(
            (
                (f"agreement@10 with {full}", lambda row, _: _share(row.kept.with_full)),
                ("cascade", lambda row, _: _share(row.kept.in_cascade)),
            )
            if full
            else ()
        ),
        *((("in 8 bits", _in_8_bits),) if eight else ()),
    )


def _by_core(row: RuntimeRow, _: float) -> str:
    return three_digits(1 / row.encoder.median / row.threads)


def _in_8_bits(row: RuntimeRow, _: float) -> str:
    return f"{row.rounded} of {row.rounded + row.left}" if row.rounded else NOTHING


def _share(percent: float | None) -> str:
    return NOTHING if percent is None else f"{percent:.1f}"


def _headers(report: Runtimes) -> tuple[str, ...]:
    numbers = (header for header, _ in _columns(report))
    refused = ("refused because",) if report.refused else ()
    return ("tower", "runtime", "dtype", *numbers, *refused)


def _numbers(report: Runtimes) -> range:
    """The columns that hold numbers."""
    return range(3, 3 + len(_columns(report)))


def _rows(report: Runtimes) -> Iterator[tuple[str, ...]]:
    usual, columns = _references(report.rows), _columns(report)
    why = ("",) if report.refused else ()
    for tower in report.models:
        for row in (row for row in report.rows if row.tower == tower):
            plain = usual[tower, row.threads].encoder.median
            cells = (shown(row, plain) for _, shown in columns)
            yield (row.tower, row.runtime, row.dtype, *cells, *why)
        for refusal in (refusal for refusal in report.refused if refusal.tower == tower):
            nothing = [NOTHING] * len(columns)
            yield (tower, refusal.runtime, refusal.dtype, *nothing, refusal.why)
