"""One experiment under several seeds: their reports become one table of means and intervals.

Reads what `evaluation.cascade` wrote for each seed, checks that all reports are of the same
experiment, and sums them up. A seed draws the calibration images, so the spread is that of the
compression, not that of the queries; intervals over queries are in the reports.

    python -m evaluation.seeds --report results/seed-0/report.json results/seed-1/report.json
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from commands.errors import UsageError
from commands.flags import ConfigOption, ReadPath, WrittenPath
from commands.inputs import inputs_of
from commands.parsing import said_of
from commands.run import main_of
from commands.screen import console, printable
from commands.writing.outputs import finished_directory
from evaluation.command import run_command
from evaluation.reports.record import RecordError, write_text
from evaluation.reports.report import Report, Searched, open_report, refuse_different
from evaluation.reports.row import Row


@dataclass(frozen=True)
class SeedsOptions(ConfigOption):
    """Sum up one experiment's reports under several seeds: means and 95 % t intervals.

    Example: python -m evaluation.seeds --report results/seed-*/report.json
    """

    report: tuple[ReadPath, ...] = ()
    """two or more reports of the same experiment, each with its own seed"""
    reference: str = "fisher+rescale"
    """method to compare drops with, under the same constraint"""
    output: WrittenPath = Path("results/seeds")
    """directory to write seeds.md and seeds.json into"""
    overwrite: bool = False
    """replace an earlier result"""

    def check(self) -> None:
        """Raise `UsageError` if fewer than two reports are named."""
        super().check()
        if len(self.report) < 2:
            raise UsageError("name at least two --report, of one experiment under different seeds")


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("evaluation.seeds"), SeedsOptions, "evaluation.seeds")

import numpy as np
from scipy import stats

from evaluation.reports import record
from evaluation.reports.seeds import table as seeds_table
from evaluation.reports.seeds.report import SeedsReport, SeedsRow, Spread

SAME = tuple(field.name for field in fields(Searched))
"""Fields in which reports of one experiment agree."""
Key = tuple[str, str]


def spread(values: Sequence[float]) -> Spread:
    """Mean and 95 % t interval of n ≥ 2 independent measurements.

    The half width is t · s / √n: t the 97.5 % quantile of Student's distribution with n - 1 degrees
    of freedom, s the sample standard deviation.

    Raises:
        ValueError: there are fewer than two.
    """
    if len(values) < 2:
        raise ValueError(f"a spread takes at least 2 values, got {len(values)}")
    numbers = np.asarray(values, dtype=np.float64)
    quantile = stats.t.ppf(0.975, len(numbers) - 1)
    half_width = float(quantile * numbers.std(ddof=1) / len(numbers) ** 0.5)
    return Spread(float(numbers.mean()), half_width, tuple(numbers.tolist()))


def summed_up(reports: Sequence[Report], reference: str) -> SeedsReport:
    """One report of many: the same experiment under different seeds.

    Args:
        reports: at least two, which differ in their seeds and in nothing that was asked for.
        reference: method that ratios are taken to, where it is among the rows.

    Raises:
        RecordError: the reports aren't of one experiment, or not of different seeds.
    """
    _refuse_different(reports)
    by_key = [{_key(row): row for row in report.rows} for report in reports]
    rows = [_row([report.reference for report in reports], None)]
    for method, constraint in by_key[0]:
        found = [table[method, constraint] for table in by_key]
        known = (reference, constraint) in by_key[0]
        own = [table[reference, constraint] for table in by_key] if known else None
        rows.append(_row(found, own))
    first = reports[0]
    return SeedsReport(
        **{name: getattr(first, name) for name in SAME},
        calibration=tuple(dict.fromkeys(report.calibration for report in reports)),
        machines=tuple(dict.fromkeys(report.machine.summary for report in reports)),
        seeds=tuple(report.seed for report in reports),
        reference=reference,
        rows=tuple(rows),
    )


def main(options: SeedsOptions) -> None:
    """Read the reports, sum them up, write and show the table."""
    with finished_directory(options.output, options.overwrite, inputs_of(options)) as directory:
        summary = summed_up([open_report(path) for path in options.report], options.reference)
        known = {row.method for row in summary.rows}
        if "reference" in said_of(options).given and options.reference not in known:
            raise UsageError(
                f"--reference {options.reference}: the reports have {', '.join(sorted(known))}"
            )
        record.save(summary, directory / "seeds.json", "seeds")
        write_text(directory / "seeds.md", seeds_table.markdown(summary))
    console().print(seeds_table.terminal(summary))
    console().print(f"wrote {printable(options.output)}", soft_wrap=True)


def _key(row: Row) -> Key:
    return row.method, row.constraint


def _refuse_different(reports: Sequence[Report]) -> None:
    """Raise `RecordError` unless all reports are one experiment, each under its own seed."""
    for report in reports:
        counts = Counter(map(_key, report.rows))
        if twice := [key for key, count in counts.items() if count > 1]:
            method, constraint = twice[0]
            raise RecordError(f"a report has two rows {method} {constraint}: it may have one")
    refuse_different(reports, SAME)
    first = reports[0]
    for other in reports[1:]:
        if some := set(map(_key, first.rows)) ^ set(map(_key, other.rows)):
            raise RecordError(f"not one experiment: only some reports have {' '.join(min(some))}")
    seeds = Counter(report.seed for report in reports)
    if again := [seed for seed, count in seeds.items() if count > 1]:
        raise RecordError(f"{seeds[again[0]]} reports have seed {again[0]}: each takes its own")


def _row(rows: Sequence[Row], reference: Sequence[Row] | None) -> SeedsRow:
    """One method under one constraint: its row for each seed, and the reference's."""
    first = rows[0]
    return SeedsRow(
        method=first.method,
        constraint=first.constraint,
        constraint_kind=first.constraint_kind,
        constraint_value=first.constraint_value,
        mac_fraction=spread([row.mac_fraction for row in rows]),
        recall={k: spread([row.alone.recall[k].value for row in rows]) for k in first.alone.recall},
        agreement=spread([row.alone.agreement.value for row in rows]),
        one_minus_cosine=_spread_if_all(rows, lambda row: row.one_minus_cosine),
        cascade_agreement=_spread_if_all(
            rows, lambda row: row.cascade.agreement.value if row.cascade else None
        ),
        compression_seconds=_spread_if_all(rows, lambda row: row.compression_seconds),
        agreement_drop_ratio=_ratio(rows, reference, lambda row: 100 - row.alone.agreement.value),
        cosine_ratio=_ratio(rows, reference, lambda row: row.one_minus_cosine),
    )


def _spread_if_all(rows: Sequence[Row], value: Callable[[Row], float | None]) -> Spread | None:
    found = [number for row in rows if (number := value(row)) is not None]
    return spread(found) if len(found) == len(rows) else None


def _ratio(
    rows: Sequence[Row], reference: Sequence[Row] | None, value: Callable[[Row], float | None]
) -> Spread | None:
    """The spread of a value over the reference's, seed by seed."""
    if reference is None:
        return None
    pairs = [(value(row), value(other)) for row, other in zip(rows, reference, strict=True)]
    ratios = [own / theirs for own, theirs in pairs if own is not None and theirs]
    # None where a reference lost nothing, or a number wasn't measured
    return spread(ratios) if len(ratios) == len(pairs) else None
