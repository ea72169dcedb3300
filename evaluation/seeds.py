"""One experiment under several seeds: their reports become one table of means and intervals.

Stands behind the report: what `evaluation.cascade` wrote for each seed is read, checked to be the
same experiment, and summed up. A seed draws the calibration images, so the spread is that of the
compression, not that of the queries; intervals over queries are in the reports.

    python -m evaluation.seeds --report results/seed-0/report.json results/seed-1/report.json
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from commands.flags import ConfigOption, ReadPath, WrittenPath
from commands.inputs import inputs_of
from commands.outputs import finished_directory
from commands.parsing import said_of
from commands.screen import console, printable
from compress.command import run_command
from compress.errors import UserError
from evaluation.reports import seeds_table
from evaluation.reports.record import write_text, written
from evaluation.reports.report import Report, Row, open_report, refuse_different

SCHEMA = 1
SAME = ("model", "corpus", "split", "images", "queries", "captions", "m")
"""Fields in which reports of one experiment agree."""

Key = tuple[str, str]


@dataclass(frozen=True)
class Spread:
    """A number measured under n seeds: its mean, and half the width of the 95 % t interval.

    `values` are the n numbers, in the order of the seeds.
    """

    mean: float
    half_width: float
    values: tuple[float, ...]


@dataclass(frozen=True)
class SeedsRow:
    """One method under one constraint, over all seeds.

    Attributes:
        method: as in the reports.
        constraint: as in the reports.
        constraint_value: the same as a number; None where there is none.
        mac_fraction: kept / dense encoder MACs.
        recall: Recall@k of the first stage alone by k, in percent.
        agreement: agreement@10 of the first stage alone, in percent.
        one_minus_cosine: of the first stage's embeddings; None where a report has none.
        cascade_agreement: agreement@10 of the cascade, in percent; None for the uncascaded tower.
        compression_seconds: None where a report has none.
        agreement_drop_ratio: 100 - agreement over that of the reference under the same constraint
            and seed; None where there is no reference, or its drop is 0.
        cosine_ratio: the same of `one_minus_cosine`.
    """

    method: str
    constraint: str
    constraint_value: float | None
    mac_fraction: Spread
    recall: dict[int, Spread]
    agreement: Spread
    one_minus_cosine: Spread | None
    cascade_agreement: Spread | None
    compression_seconds: Spread | None
    agreement_drop_ratio: Spread | None
    cosine_ratio: Spread | None


@dataclass(frozen=True)
class SeedsReport:
    """One experiment under several seeds.

    Attributes:
        model: the full tower.
        corpus: that is searched.
        split: of the corpus.
        images: number of images searched.
        queries: number of caption queries.
        captions: the protocol, "all" or "first".
        m: candidates handed on.
        calibration: what was calibrated on, in words; several where the reports differ.
        machines: that the seconds are of; several where the reports differ.
        seeds: of the reports.
        reference: method that ratios are taken to.
        rows: the uncascaded tower, then one a method and constraint.
        schema: version of this form.
    """

    model: str
    corpus: str
    split: str
    images: int
    queries: int
    captions: str
    m: tuple[int, ...]
    calibration: tuple[str, ...]
    machines: tuple[str, ...]
    seeds: tuple[int, ...]
    reference: str
    rows: tuple[SeedsRow, ...]
    schema: int = SCHEMA


@dataclass(frozen=True)
class SeedsOptions(ConfigOption):
    """Sum up one experiment's reports under several seeds: means and 95 % t intervals.

    Example: python -m evaluation.seeds --report results/seed-*/report.json
    """

    report: tuple[ReadPath, ...] = ()
    """two or more reports of the same experiment, each with another seed"""
    reference: str = "fisher+rescale"
    """method that drops are compared with, under the same constraint"""
    output: WrittenPath = Path("results/seeds")
    """directory to write seeds.md and seeds.json into"""
    overwrite: bool = False
    """replace an earlier result"""


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
        UserError: the reports aren't of one experiment, or not of different seeds.
    """
    _refuse_different(reports)
    by_key = [{_key(row): row for row in report.rows} for report in reports]
    rows = [_row([report.reference for report in reports], None)]
    for method, constraint in by_key[0]:
        found = [each[method, constraint] for each in by_key]
        own = [each.get((reference, constraint)) for each in by_key]
        rows.append(_row(found, own if own[0] else None))
    first = reports[0]
    machines = [
        f"{each.cpu}, {each.threads} threads, {each.device}, {each.dtype}"
        for each in (report.machine for report in reports)
    ]
    return SeedsReport(
        **{name: getattr(first, name) for name in SAME},
        calibration=tuple(dict.fromkeys(report.calibration for report in reports)),
        machines=tuple(dict.fromkeys(machines)),
        seeds=tuple(report.seed for report in reports),
        reference=reference,
        rows=tuple(rows),
    )


def main(options: SeedsOptions) -> None:
    """Read the reports, sum them up, write and show the table."""
    if len(options.report) < 2:
        raise UserError("name at least two --report, of one experiment under different seeds")
    with finished_directory(options.output, options.overwrite, inputs_of(options)) as directory:
        summary = summed_up([open_report(path) for path in options.report], options.reference)
        known = {row.method for row in summary.rows}
        if "reference" in said_of(options).given and options.reference not in known:
            raise UserError(
                f"--reference {options.reference}: the reports have {', '.join(sorted(known))}"
            )
        write_text(directory / "seeds.json", written(summary, "seeds"))
        write_text(directory / "seeds.md", seeds_table.markdown(summary))
    console().print(seeds_table.terminal(summary))
    console().print(f"wrote {printable(options.output)}", soft_wrap=True)


def _key(row: Row) -> Key:
    return row.method, row.constraint


def _refuse_different(reports: Sequence[Report]) -> None:
    """Raise `UserError` unless all reports are one experiment, each under its own seed."""
    for report in reports:
        counts = Counter(map(_key, report.rows))
        if twice := [key for key, count in counts.items() if count > 1]:
            raise UserError(f"a report has two rows {' '.join(twice[0])}: no telling which counts")
    refuse_different(reports, SAME)
    first = reports[0]
    for other in reports[1:]:
        if some := set(map(_key, first.rows)) ^ set(map(_key, other.rows)):
            raise UserError(f"not one experiment: only some reports have {' '.join(min(some))}")
    seeds = Counter(report.seed for report in reports)
    if again := [seed for seed, count in seeds.items() if count > 1]:
        raise UserError(f"{seeds[again[0]]} reports have seed {again[0]}: each takes its own")


def _row(rows: Sequence[Row], reference: Sequence[Row] | None) -> SeedsRow:
    """One method under one constraint: its row for each seed, and the reference's."""
    first = rows[0]
    return SeedsRow(
        method=first.method,
        constraint=first.constraint,
        constraint_value=first.constraint_value,
        mac_fraction=spread([row.mac_fraction for row in rows]),
        recall={k: spread([row.alone.recall[k].value for row in rows]) for k in first.alone.recall},
        agreement=spread([row.alone.agreement.value for row in rows]),
        one_minus_cosine=_spread_if_all(rows, lambda row: row.one_minus_cosine),
        cascade_agreement=_spread_if_all(
            rows, lambda row: row.cascade and row.cascade.agreement.value
        ),
        compression_seconds=_spread_if_all(rows, lambda row: row.compression_seconds),
        agreement_drop_ratio=_ratio(rows, reference, lambda row: 100 - row.alone.agreement.value),
        cosine_ratio=_ratio(rows, reference, lambda row: row.one_minus_cosine),
    )


def _spread_if_all(rows: Sequence[Row], value: Callable[[Row], float | None]) -> Spread | None:
    found = [value(row) for row in rows]
    return None if None in found else spread(found)


def _ratio(
    rows: Sequence[Row], reference: Sequence[Row] | None, value: Callable[[Row], float | None]
) -> Spread | None:
    """The spread of a value over the reference's, seed by seed."""
    if reference is None:
        return None
    own, theirs = [value(row) for row in rows], [value(row) for row in reference]
    if None in own or not all(theirs):  # a reference that lost nothing, or wasn't measured
        return None
    return spread([one / other for one, other in zip(own, theirs, strict=True)])


if __name__ == "__main__":
    run_command(main, SeedsOptions, "evaluation.seeds")
