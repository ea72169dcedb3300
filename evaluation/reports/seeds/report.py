"""One experiment under several seeds: what `evaluation.seeds` makes of their reports, as data."""

from dataclasses import dataclass

from evaluation.reports.report import Searched

SCHEMA = 2


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
        constraint_kind: as in the reports.
        constraint_value: as in the reports.
        mac_fraction: kept / dense encoder MACs.
        recall: Recall@k of the first stage alone by k, in percent.
        agreement: agreement@10 of the first stage alone, in percent.
        one_minus_cosine: of the first stage's embeddings; None where a report has none.
        cascade_agreement: agreement@10 of the cascade, in percent; None for the full tower.
        compression_seconds: None where a report has none.
        agreement_drop_ratio: 100 - agreement over that of the reference under the same constraint
            and seed; None where there is no reference, or its drop is 0.
        cosine_ratio: the same of `one_minus_cosine`.
    """

    method: str
    constraint: str
    constraint_kind: str | None
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
class SeedsReport(Searched):
    """One experiment under several seeds.

    Attributes:
        calibration: what was calibrated on, in words; several where the reports differ.
        machines: that the seconds are of; several where the reports differ.
        seeds: of the reports.
        reference: method that ratios are taken to.
        rows: the full tower, then one per method and constraint.
        schema: version of this form.
    """

    calibration: tuple[str, ...]
    machines: tuple[str, ...]
    seeds: tuple[int, ...]
    reference: str
    rows: tuple[SeedsRow, ...]
    schema: int = SCHEMA
