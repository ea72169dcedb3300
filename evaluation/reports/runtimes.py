"""Towers in several runtimes: seconds, and how much of embeddings and results each keeps.

Data alone, as `evaluation.reports.latency.report`: no module that this one imports needs torch.
Cosines and agreement are with the same tower in torch, float32.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from rich.box import SIMPLE_HEAD
from rich.table import Table

from evaluation.measuring.values import Machine, Timing
from evaluation.reports import record
from evaluation.reports.record import RecordError
from evaluation.reports.table import NOTHING, github_table, three_digits

SCHEMA = 2
FILE = "report.json"
REFERENCE = ("torch", "float32")


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
    """

    tower: str
    runtime: str
    dtype: str
    threads: int
    encoder: Timing
    end_to_end: Timing
    kept: Kept


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


def terminal(report: Runtimes) -> Table:
    """The report as a `rich` table."""
    shown = Table(caption=caption(report), box=SIMPLE_HEAD, show_edge=False)
    for place, header in enumerate(_headers(report)):
        shown.add_column(header, justify="right" if place in _numbers(report) else "left")
    for row in _rows(report):
        shown.add_row(*row)
    return shown


def markdown(report: Runtimes) -> str:
    """The report as a GitHub table, with what it was measured on, ending with a newline."""
    left = tuple(set(range(len(_headers(report)))) - set(_numbers(report)))
    table = github_table(list(_headers(report)), _rows(report), left)
    return f"{', '.join(report.models)} in several runtimes\n\n{table}\n{caption(report)}\n"


def caption(report: Runtimes) -> str:
    """What was measured on what, a line each."""
    lines = [
        f"runtimes of a tower timed in turn, batches of {report.batch}, on {report.machine.cpu}",
        f"{report.images:,} images of {report.searched}, {report.queries:,} queries; agreement@10 "
        "and cosine with the same tower in torch, float32",
        "images/s/core: encoder alone",
    ]
    if report.full:
        lines.append(f"cascade: agreement@10 with {report.full} of a cascade that hands it 50")
    return "\n".join(lines)


def _headers(report: Runtimes) -> tuple[str, ...]:
    with_full = (f"agreement@10 with {report.full}", "cascade") if report.full else ()
    return (
        "tower", "runtime", "dtype", "threads", "ms/image, encoder", "times as fast",
        "ms/image, from bytes", "images/s/core", "cosine", "least", "agreement@10", *with_full,
        *(("refused because",) if report.refused else ()),
    )  # fmt: skip


def _numbers(report: Runtimes) -> range:
    """The columns that hold numbers."""
    return range(3, len(_headers(report)) - bool(report.refused))


def _rows(report: Runtimes) -> Iterator[tuple[str, ...]]:
    usual = _references(report.rows)
    why = ("",) if report.refused else ()
    for tower in report.models:
        for row in (row for row in report.rows if row.tower == tower):
            reference = usual[tower, row.threads].encoder.median
            yield (*_measured(row, reference, report.full is not None), *why)
        for refusal in (refusal for refusal in report.refused if refusal.tower == tower):
            nothing = [NOTHING] * len(_numbers(report))
            yield (tower, refusal.runtime, refusal.dtype, *nothing, refusal.why)


def _measured(row: RuntimeRow, reference: float, with_full: bool) -> tuple[str, ...]:
    """What is shown of a row; `reference` are torch's seconds in float32."""
    kept, seconds = row.kept, row.encoder.median
    ours = (kept.with_full, kept.in_cascade) if with_full else ()
    return (
        row.tower,
        row.runtime,
        row.dtype,
        str(row.threads),
        three_digits(1000 * seconds),
        f"{reference / seconds:.2f}",
        three_digits(1000 * row.end_to_end.median),
        three_digits(1 / seconds / row.threads),
        f"{kept.cosine:.6f}",
        f"{kept.least:.5f}",
        f"{kept.agreement:.1f}",
        *(NOTHING if share is None else f"{share:.1f}" for share in ours),
    )
