"""The report: all that one cascade experiment measured, in one JSON file.

Tables (`evaluation.reports.table`) and figures (`figures`) are made from reports and from nothing
else, so a number that they show must be in here. Recalls are in percent, times in seconds.
"""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from compress.errors import UserError
from evaluation.measuring.bootstrap import Interval
from evaluation.measuring.clock import Timing
from evaluation.measuring.machine import Machine
from evaluation.reports import table
from evaluation.reports.record import RecordError, read, write_text, written
from pruning_mechanism.checkpoints.weights import open_up

SCHEMA = 1


class ReportError(ValueError):
    """A file isn't a report, or a report that this version can't read or write."""


@dataclass(frozen=True)
class Result:
    """How well one search answers the queries.

    `recall` is Recall@k by k, `difference` Recall@k minus the uncascaded tower's in percentage
    points (paired), `agreement` agreement@10 with the uncascaded tower. Intervals are 95 %
    bootstrap intervals over images.
    """

    recall: dict[int, Interval]
    difference: dict[int, Interval]
    agreement: Interval


@dataclass(frozen=True)
class Row:
    """One first stage: what it costs, how well it searches alone and in front of the full tower.

    Attributes:
        method: the rule that made it, "uncascaded" for the full tower; with " resumed" where the
            full tower goes on from its states.
        constraint: what the rule was asked for, to be shown ("MAC 0.65", "77 heads").
        constraint_value: the same as a number, to sort by; None where there is none.
        directory: name of the checkpoint's directory, None if it wasn't kept.
        encoder_macs: MACs of the encoder layers for one image.
        mac_fraction: kept / dense encoder MACs, in (0, 1].
        tower_macs: MACs of the whole tower for one image, patch embedding and projection included.
        parameters: of the vision tower.
        alone: the first stage as an ordinary search.
        cascade: the first stage in front of the full tower; None for the uncascaded tower.
        one_minus_cosine: mean of 1 − cos(embedding, the full tower's embedding) over the images.
        encoder_seconds: seconds per image, pixels → embedding.
        end_to_end_seconds: seconds per image, bytes → embedding.
        lifetime_speedup: at `f_assumed`; bounds from the quartiles of the clock.
        query_speedup: per-query speedup; None where no candidates are handed on.
        f_assumed: the f of `lifetime_speedup`.
        f_measured: share of the collection that the queries brought before the last stage.
        compression_seconds: what making the first stage took; None if it was made earlier.
        state_bytes: what is kept of an image for the full tower to go on from; None if nothing is.
        resumed_seconds: seconds per image, states → the full tower's embedding, measured beside
            those that the speedups are made of; None where it starts from the image.
        attention: the implementation by which the tower attends.
    """

    method: str
    constraint: str
    constraint_value: float | None
    directory: str | None
    encoder_macs: int
    mac_fraction: float
    tower_macs: int
    parameters: int
    alone: Result
    cascade: Result | None
    one_minus_cosine: float | None
    encoder_seconds: Timing
    end_to_end_seconds: Timing
    lifetime_speedup: Interval
    query_speedup: float | None
    f_assumed: float | None
    f_measured: float | None
    compression_seconds: float | None
    state_bytes: int | None = None
    resumed_seconds: Timing | None = None
    attention: str | None = None


@dataclass(frozen=True)
class Report:
    """One experiment.

    Attributes:
        command: the command line that made it.
        model: the full tower, name of its directory or hub name.
        corpus: name of the corpus searched.
        split: of the corpus searched.
        images: number of images searched.
        queries: number of caption queries.
        calibration: what the first stages were calibrated on, in words.
        captions: the protocol, "all" or "first".
        m: candidates handed on, one number for each stage but the last.
        seconds_basis: which seconds speedups are made of, "encoder" or "end to end".
        seed: of everything random.
        skipped: keys of the images that couldn't be read.
        reference: the uncascaded tower.
        rows: one a first stage.
        machine: where it was measured.
        versions: of Python and packages.
        date: ISO 8601.
        schema: version of this form.
    """

    command: str
    model: str
    corpus: str
    split: str
    images: int
    queries: int
    calibration: str
    captions: str
    m: tuple[int, ...]
    seconds_basis: str
    seed: int
    skipped: tuple[str, ...]
    reference: Row
    rows: tuple[Row, ...]
    machine: Machine
    versions: dict[str, str]
    date: str
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        """Refuse a basis that `seconds` wouldn't know."""
        if self.seconds_basis not in ("encoder", "end to end"):
            raise ReportError(
                f'seconds_basis must be "encoder" or "end to end", got {self.seconds_basis!r}'
            )

    def seconds(self, row: Row) -> Timing:
        """The seconds per image of a row that the speedups are made of."""
        return row.encoder_seconds if self.seconds_basis == "encoder" else row.end_to_end_seconds

    def save(self, path: str | Path) -> None:
        """Write as JSON, whole or not at all: to a temporary file beside it, then renamed.

        Raises:
            ReportError: a value is NaN or infinite, or isn't what a report holds.
            OSError: the file can't be written.
        """
        path = Path(path)
        try:
            text = written(self, "report")
        except RecordError as error:
            raise ReportError(str(error)) from error
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            os.close(handle)
            write_text(Path(temporary), text)
            open_up(temporary)  # mkstemp's files are private, a report isn't
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise

    @classmethod
    def load(cls, path: str | Path) -> "Report":
        """Read what `save` wrote.

        Raises:
            ReportError: the file isn't a report, or one with another schema.
            OSError: the file can't be read.
        """
        try:
            return read(cls, path, SCHEMA, "report")
        except RecordError as error:
            raise ReportError(str(error)) from error

    def table(self) -> Table:
        """The report as a table for a terminal of 120 columns."""
        return table.terminal(self)

    def markdown(self) -> str:
        """The report as a GitHub table."""
        return table.markdown(self)


def open_report(path: Path) -> Report:
    """Read a report that a user named.

    Raises:
        UserError: it isn't one, or can't be read.
    """
    try:
        return Report.load(path)
    except ReportError as error:
        raise UserError(str(error)) from error
    except OSError as error:
        raise UserError(f"--report {path}: {error.strerror}") from error


def names_of(paths: Sequence[Path]) -> list[str]:
    """What tells reports apart: their directories' names, their own, or else whole paths."""
    directories = [path.resolve().parent.name for path in paths]
    for names in (directories, [path.stem for path in paths]):
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def refuse_different(reports: Sequence[Report], names: Sequence[str]) -> None:
    """Raise `UserError` unless reports, at least one, agree in the fields of these names."""
    first, *others = reports
    for other in others:
        for name in names:
            ours, theirs = getattr(first, name), getattr(other, name)
            if ours != theirs:
                raise UserError(f"not one experiment: {name} is {ours} here and {theirs} there")
