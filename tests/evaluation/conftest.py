"""A report to write, read and show; its numbers are made up and describe no measurement."""

import pytest

from evaluation.measuring.values import Interval, Machine, Timing
from evaluation.reports.report import Report
from evaluation.reports.row import FULL_TOWER, Result, Row, constraint_of


def around(value, width=1.0):
    return Interval(value, value - width, value + width)


def result(*recalls, reference=(30.5, 60.25, 71.0)):
    return Result(
        recall={k: around(value) for k, value in zip((1, 5, 10), recalls, strict=True)},
        difference={
            k: around(value - own, 0.5)
            for k, value, own in zip((1, 5, 10), recalls, reference, strict=True)
        },
        agreement=around(88.125),
    )


def row(method, constraint, fraction, cascade=True):
    rule, _, variant = method.partition("+")
    kind, value = constraint_of(constraint)
    return Row(
        method=method,
        rule=rule,
        variant=variant,
        constraint=constraint,
        constraint_kind=kind,
        constraint_value=value,
        directory=f"{method}-{fraction}" if cascade else None,
        encoder_macs=int(17e9 * fraction),
        mac_fraction=fraction,
        tower_macs=int(17e9 * fraction + 1.2e8),
        parameters=int(86e6 * fraction),
        alone=result(30.5 * fraction, 60.25 * fraction, 71.0 * fraction),
        cascade=result(30.5, 60.0, 70.5) if cascade else None,
        one_minus_cosine=0.125 if cascade else 0.0,
        encoder_seconds=Timing(0.05 * fraction, 0.045 * fraction, 0.06 * fraction, 5),
        end_to_end_seconds=Timing(0.06 * fraction, 0.05 * fraction, 0.07 * fraction, 5),
        lifetime_speedup=around(1 / (fraction + 0.1), 0.1),
        query_speedup=1.0 if cascade else None,
        f_assumed=0.1 if cascade else None,
        f_measured=0.625 if cascade else None,
        compression_seconds=12.5 if cascade else None,
    )


@pytest.fixture
def report():
    return made_up()


def made_up() -> Report:
    return Report(
        command="python -m evaluation.cascade",
        model="demo/clip-scenes",
        corpus="scenes",
        split="test",
        images=1000,
        queries=5000,
        calibration="512 scenes of the training split",
        captions="all",
        m=(50,),
        seconds_basis="encoder",
        seed=0,
        skipped=("broken.jpg",),
        reference=row(FULL_TOWER, "", 1.0, cascade=False),
        rows=(row("fisher", "MAC 0.65", 0.65), row("sensitivity", "77 heads", 0.8)),
        machine=Machine("a processor", 2, 2, "cpu", "float32", "Linux"),
        versions={"python": "3.11", "torch": "2.15"},
        date="2026-01-01T00:00:00+00:00",
    )
