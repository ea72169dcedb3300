"""A tower in several runtimes: seconds, and how much of its embeddings and results each keeps.

Data alone, as `evaluation.reports.latency`: no module that this one imports needs torch. Cosines
and agreement are with the same tower in torch, float32.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from evaluation.measuring.values import Machine, Timing
from evaluation.reports import record
from evaluation.reports.record import RecordError
from evaluation.reports.table import NOTHING, github_table, three_digits

SCHEMA = 1
FILE = "report.json"
REFERENCE = ("torch", "float32")


@dataclass(frozen=True)
class RuntimeRow:
    """One runtime and type.

    Attributes:
        runtime: its name.
        dtype: what it computes in.
        encoder: seconds an image from ready pixels.
        end_to_end: seconds an image from the bytes of the file.
        cosine: mean cosine to torch's float32 embeddings.
        least: the least of them.
        agreement: share of torch's float32 top 10 that is in its own, in percent.
        with_full: share of the full tower's top 10, in percent; None: there is no full tower.
    """

    runtime: str
    dtype: str
    encoder: Timing
    end_to_end: Timing
    cosine: float
    least: float
    agreement: float
    with_full: float | None


@dataclass(frozen=True)
class Runtimes:
    """One run.

    Attributes:
        command: the command line that made it.
        model: the tower.
        full: the full tower, if there is one.
        searched: the corpus and its split.
        images: that were searched.
        queries: that they were searched by.
        batch: images embedded at once.
        threads: of the CPU.
        rows: torch in float32 first.
        left_out: why others are not there, by name.
        machine: where it was measured.
        versions: of Python and packages.
        date: ISO 8601.
        schema: version of this form.
    """

    command: str
    model: str
    full: str | None
    searched: str
    images: int
    queries: int
    batch: int
    threads: int
    rows: tuple[RuntimeRow, ...]
    left_out: dict[str, str]
    machine: Machine
    versions: dict[str, str]
    date: str
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        """Refuse a report without what all others are compared with."""
        if not self.rows or (self.rows[0].runtime, self.rows[0].dtype) != REFERENCE:
            raise RecordError("a report of runtimes begins with torch in float32")

    def save(self, path: str | Path) -> None:
        """Write as JSON, whole or not at all; errors as of `evaluation.reports.latency`."""
        record.save(self, path, "report of runtimes")

    @classmethod
    def load(cls, path: str | Path) -> "Runtimes":
        """Read what `save` wrote; errors as of `evaluation.reports.latency`."""
        return record.read(cls, path, SCHEMA, "report of runtimes")


def terminal(report: Runtimes) -> Table:
    """The report as a `rich` table."""
    shown = Table(title=report.model, caption=caption(report), box=SIMPLE_HEAD, show_edge=False)
    for place, header in enumerate(_headers(report)):
        shown.add_column(header, justify="right" if place > 1 else "left")
    for row in _rows(report):
        shown.add_row(*row)
    return shown


def markdown(report: Runtimes) -> str:
    """The report as a GitHub table, with what it was measured on, ending with a newline."""
    table = github_table(list(_headers(report)), _rows(report), (0, 1))
    return f"{report.model} in several runtimes\n\n{table}\n{caption(report)}\n"


def caption(report: Runtimes) -> str:
    """What was measured on what, a line each."""
    lines = [
        f"timed in turn, batches of {report.batch}, {report.threads} "
        f"thread{'s' if report.threads > 1 else ''}, on {report.machine.summary}",
        f"{report.images:,} images of {report.searched}, {report.queries:,} queries; agreement@10 "
        "and cosine with torch in float32",
    ]
    lines += [f"{name} is not here: {why}" for name, why in report.left_out.items()]
    return "\n".join(lines)


def _headers(report: Runtimes) -> tuple[str, ...]:
    with_full = (f"agreement@10 with {report.full}",) if report.full else ()
    return (
        "runtime", "dtype", "ms/image, encoder", "times as fast", "ms/image, from bytes",
        "cosine", "least", "agreement@10", *with_full,
    )  # fmt: skip


def _rows(report: Runtimes) -> Iterator[tuple[str, ...]]:
    usual = report.rows[0].encoder.median
    for row in report.rows:
        with_full = NOTHING if row.with_full is None else f"{row.with_full:.1f}"
        yield (
            row.runtime,
            row.dtype,
            three_digits(1000 * row.encoder.median),
            f"{usual / row.encoder.median:.2f}",
            three_digits(1000 * row.end_to_end.median),
            f"{row.cosine:.6f}",
            f"{row.least:.5f}",
            f"{row.agreement:.1f}",
            *((with_full,) if report.full else ()),
        )
