"""Rules compared at equal measured time, from reports: what each finds in the same seconds.

Rules that are asked for the same MACs don't take the same time, so rows of one constraint compare
unlike things. This reads each method off between its rows, at shares of the full tower's seconds.

    python -m evaluation.equal_time --report results/cascade/report.json --share 0.5 0.25
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from commands.errors import UsageError
from commands.flags import ConfigOption, ReadPath, Share, WrittenPath
from commands.inputs import inputs_of
from commands.run import main_of
from commands.screen import console, printable
from commands.writing.outputs import finished_directory
from evaluation.command import run_command
from evaluation.reports.record import RecordError, write_text
from evaluation.reports.report import Report, Searched, names_of, open_report, refuse_different
from evaluation.reports.row import Row


@dataclass(frozen=True)
class EqualTimeOptions(ConfigOption):
    """Compare rules at equal measured time, as shares of the full tower's.

    Example: python -m evaluation.equal_time --report results/cascade/report.json --share 0.5 0.25
    """

    report: tuple[ReadPath, ...] = (Path("results/cascade/report.json"),)
    """one or more reports on the same queries, as evaluation.cascade writes them"""
    share: tuple[Share, ...] = (0.5, 0.35, 0.25, 0.15)
    """a first stage's seconds / the full tower's, in (0, 1]"""
    output: WrittenPath = Path("results/equal-time")
    """directory to write equal_time.md into"""
    overwrite: bool = False
    """replace an earlier result"""

    def check(self) -> None:
        """Raise `UsageError` if no report or no share is named."""
        super().check()
        if not self.report:
            raise UsageError("name at least one --report")
        if not self.share:
            raise UsageError("name at least one --share")


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("evaluation.equal_time"), EqualTimeOptions, "evaluation.equal_time")

import numpy as np

from evaluation.reports.equal_time import table as equal_time_table
from evaluation.reports.equal_time.report import Comparison, Line, Measure

SAME = (*(field.name for field in fields(Searched)), "seconds_basis")
"""Fields in which reports that are compared agree."""


def measures_of(ks: Iterable[int]) -> tuple[Measure, ...]:
    """What methods are compared by: agreement and Recall@k alone, agreement of the cascade."""
    return (
        Measure("agreement@10\nalone", lambda row: row.alone.agreement.value),
        *map(_recall_alone, sorted(ks)),
        Measure("agreement@10\ncascade", lambda row: (row.cascade or row.alone).agreement.value),
    )


def _recall_alone(k: int) -> Measure:
    return Measure(f"R@{k}\nalone", lambda row: row.alone.recall[k].value)


def between(seconds: Sequence[float], values: Sequence[float], wanted: float) -> float | None:
    """A value at so many seconds, between those measured: linear in the logarithm of seconds.

    Args:
        seconds: measured, positive, in any order.
        values: one for each of the seconds.
        wanted: seconds, positive.

    Returns:
        The value, or None if `wanted` is outside of what was measured.
    """
    order = np.argsort(seconds, kind="stable")
    times, known = np.log(np.asarray(seconds)[order]), np.asarray(values, dtype=float)[order]
    found = float(np.interp(np.log(wanted), times, known, left=np.nan, right=np.nan))
    return None if np.isnan(found) else found


def compared(
    reports: Sequence[Report], names: Sequence[str], shares: Sequence[float]
) -> Comparison:
    """All methods of reports at shares of the full tower's seconds, each in its own report.

    Args:
        reports: at least one, on the same queries.
        names: one per report, for methods that several reports have.
        shares: of the seconds that the reports' speedups are made of.

    Raises:
        RecordError: the reports aren't on the same queries, or have no first stage.
    """
    refuse_different(reports, SAME)
    first = reports[0]
    measures = measures_of(first.reference.alone.recall)
    groups = _groups(reports, names)
    if not groups:
        raise RecordError("the reports have no first stage to compare")
    lines = [
        Line(share, title, _values(report, rows, measures, share))
        for share in dict.fromkeys(shares)
        for title, report, rows in groups
    ]
    return Comparison(tuple(reports), measures, tuple(lines))


def main(options: EqualTimeOptions) -> None:
    """Read the reports, compare, write and show the table."""
    with finished_directory(options.output, options.overwrite, inputs_of(options)) as directory:
        reports = [open_report(path) for path in options.report]
        comparison = compared(reports, names_of(options.report), options.share)
        text = equal_time_table.markdown(comparison)
        write_text(directory / "equal_time.md", text)
    console().print(equal_time_table.terminal(comparison))
    console().print(f"wrote {printable(options.output)}", soft_wrap=True)


def _groups(reports: Sequence[Report], names: Sequence[str]) -> list[tuple[str, Report, list[Row]]]:
    """The rows of each method of each report, under a title that tells them apart."""
    methods = [list(dict.fromkeys(row.method for row in report.rows)) for report in reports]
    known = Counter(method for several in methods for method in several)
    return [
        (
            method if known[method] == 1 else f"{method}, {name}",
            report,
            [row for row in report.rows if row.method == method],
        )
        for report, name, several in zip(reports, names, methods, strict=True)
        for method in several
    ]


def _values(
    report: Report, rows: Sequence[Row], measures: Sequence[Measure], share: float
) -> tuple[float | None, ...]:
    seconds = [report.seconds(row).median for row in rows]
    wanted = share * report.seconds(report.reference).median
    columns = ([measure.of(row) for row in rows] for measure in measures)
    return tuple(between(seconds, values, wanted) for values in columns)
