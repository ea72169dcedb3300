"""The report: all that one cascade experiment measured, in one JSON file.

Data alone: tables (`evaluation.reports.table`) and figures (`figures`) are made from reports and
from nothing else, so a number that they show must be in here. Recalls are in percent, times in
seconds. No module that this one imports needs torch.
"""

import types
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from evaluation.measuring.values import Interval, Machine, Timing
from evaluation.reports import record
from evaluation.reports.record import RecordError
from evaluation.reports.row import ARROW, FULL_TOWER, Last, Middle, Row, constraint_of

SCHEMA = 2


@dataclass(frozen=True)
class Searched:
    """What was searched and how: where two reports agree in this, their recalls compare.

    Attributes:
        model: the full tower, name of its directory or hub name.
        corpus: name of the corpus searched.
        split: of the corpus searched.
        images: number of images searched.
        queries: number of caption queries.
        captions: the protocol, "all" or "first".
        m: candidates handed on, one number for each stage but the last. A cascade with fewer stages
            than another of the same report takes the first of them.
    """

    model: str
    corpus: str
    split: str
    images: int
    queries: int
    captions: str
    m: tuple[int, ...]

    @property
    def title(self) -> str:
        """What was searched, in one line."""
        return (
            f"{self.model} on {self.corpus} ({self.split}): {self.images:,} images, "
            f"{self.queries:,} caption queries"
        )

    @property
    def candidates(self) -> str:
        """How many are handed on, in words."""
        return f"m = {handed_on(self.m)}"


def _from_schema_1(report: dict[str, Any]) -> dict[str, Any]:
    """Schema 1 called the full tower uncascaded; rule and constraint were in labels alone."""
    rows = report.get("rows")
    upgraded = {"rows": list(map(_row_from_schema_1, rows))} if isinstance(rows, list) else {}
    if "reference" in report:
        upgraded["reference"] = _row_from_schema_1(report["reference"])
    return report | upgraded


def _row_from_schema_1(row: Any) -> Any:
    if not isinstance(row, dict) or not all(
        isinstance(row.get(name), str) for name in ("method", "constraint")
    ):
        return row
    method = FULL_TOWER if row["method"] == "uncascaded" else row["method"]
    rule, _, variant = method.removesuffix(" resumed").partition("+")
    kind, value = constraint_of(row["constraint"])
    return row | {
        "method": method,
        "rule": rule,
        "variant": variant,
        "constraint_kind": kind,
        "constraint_value": value,
    }


@dataclass(frozen=True)
class Report(Searched, record.Saved):
    """One experiment.

    Attributes:
        command: the command line that made it.
        calibration: what the first stages were calibrated on, in words.
        seconds_basis: which seconds speedups are made of, "encoder" or "end to end".
        seed: of everything random.
        skipped: keys of the images that couldn't be read.
        reference: the full tower.
        rows: one per first stage.
        machine: where it was measured.
        versions: of Python and packages.
        date: ISO 8601.
        schema: version of this form.
    """

    command: str
    calibration: str
    seconds_basis: str
    seed: int
    skipped: tuple[str, ...]
    reference: Row
    rows: tuple[Row, ...]
    machine: Machine
    versions: dict[str, str]
    date: str
    schema: int = SCHEMA

    called: ClassVar = "report"
    version: ClassVar = SCHEMA
    upgrades: ClassVar = types.MappingProxyType({1: _from_schema_1})

    def __post_init__(self) -> None:
        """Refuse a basis that `seconds` wouldn't know."""
        if self.seconds_basis not in ("encoder", "end to end"):
            raise RecordError(
                f'seconds_basis must be "encoder" or "end to end", got {self.seconds_basis!r}'
            )

    @property
    def seconds_of(self) -> str:
        """Which seconds the speedups are made of, in words."""
        return "of the encoder only" if self.seconds_basis == "encoder" else "end to end"

    @property
    def f_assumed(self) -> float | None:
        """The f of all lifetime speedups; None if they differ."""
        found = {row.f_assumed for row in self.rows}
        return found.pop() if len(found) == 1 else None

    def m_of(self, row: Row) -> tuple[int, ...]:
        """The candidates that the stages of a row hand on."""
        return self.m[: 1 + len(row.middle)]

    def speedup(self, row: Row, basis: str) -> Interval | None:
        """A row's lifetime speedup of "end to end" or "encoder" seconds; None: not counted."""
        if basis == self.seconds_basis:
            return row.lifetime_speedup
        return row.encoder_speedup if basis == "encoder" else None

    def seconds(self, row: Row | Middle | Last) -> Timing:
        """The seconds per image of a row that the speedups are made of."""
        return row.encoder_seconds if self.seconds_basis == "encoder" else row.end_to_end_seconds


def handed_on(m: Sequence[int]) -> str:
    """Numbers of candidates, from stage to stage."""
    return ARROW.join(map(str, m))


def open_report(path: Path, command: str = "evaluation.cascade") -> Report:
    """Read a report that a user named.

    Args:
        path: of the report.
        command: the module that makes such reports, which the error names where there is none.

    Raises:
        RecordError: it isn't one, or can't be read.
    """
    return record.opened(Report.load, path, command)


def names_of(paths: Sequence[Path]) -> list[str]:
    """What tells reports apart: their directories' names, their own, or else whole paths."""
    directories = [path.resolve().parent.name for path in paths]
    for names in (directories, [path.stem for path in paths]):
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def refuse_different(reports: Sequence[Report], names: Sequence[str]) -> None:
    """Raise `RecordError` unless reports, at least one, agree in the fields of these names."""
    first, *others = reports
    for other in others:
        for name in names:
            ours, theirs = getattr(first, name), getattr(other, name)
            if ours != theirs:
                raise RecordError(f"not one experiment: {name} is {ours} here and {theirs} there")
