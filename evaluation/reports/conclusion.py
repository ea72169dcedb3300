"""What an experiment found, in one sentence that needs no table beside it.

Made from the report alone, like tables and figures.
"""

from evaluation.measuring.values import Timing
from evaluation.reports.record import RecordError
from evaluation.reports.report import Report
from evaluation.reports.row import Result, Row

UNCHANGED = 0.5
"""Percentage points of Recall@k that a cascade may lose and still be called as good."""


def conclusion(report: Report) -> str:
    """The cascade that saves most of those as good as the full tower, and what it saves.

    If no cascade is as good, that is said of the one that comes closest.

    Raises:
        RecordError: the report has no cascade.
    """
    best, cascade = _best(report)
    k = max(best.alone.recall)
    share = _share(report.seconds(best), report.seconds(report.reference))
    first, *middle = best.stages
    front = " and ".join(["it", *middle])
    recall, full = cascade.recall[k].value, report.reference.alone.recall[k].value
    return (
        f"The first stage {first} takes {share} of the full tower's time; with {front} in front, "
        f"search finds {_agreement(cascade)}, its Recall@{k} is {recall:.1f} % where the full "
        f"tower alone reaches {full:.1f} %, and over a collection's life encoding is "
        f"{_saving(report, best)}."
    )


def best_cascade(report: Report) -> Row:
    """The first stage that the conclusion is about.

    Raises:
        RecordError: the report has no cascade.
    """
    row, _ = _best(report)
    return row


def _best(report: Report) -> tuple[Row, Result]:
    """The first stage that the conclusion is about, and what it finds as a cascade."""
    found = [(row, row.cascade) for row in report.rows if row.cascade is not None]
    if not found:
        raise RecordError("the report has no first stage, so there is nothing to conclude")
    if unchanged := [(row, cascade) for row, cascade in found if _lost(cascade) <= UNCHANGED]:
        return max(unchanged, key=lambda pair: pair[0].lifetime_speedup.value)
    return min(found, key=lambda pair: _lost(pair[1]))


def _lost(cascade: Result) -> float:
    """Percentage points of Recall@k that a cascade loses, at the largest k."""
    return -cascade.difference[max(cascade.difference)].value


def _agreement(cascade: Result) -> str:
    percent = f"{cascade.agreement.value:.1f}"
    if percent == "100.0":
        return "the same top ten images"
    return f"{percent} % of the same top ten images"


def _share(part: Timing, whole: Timing) -> str:
    percent = 100 * part.median / whole.median
    return f"{percent:.1f} %" if percent < 10 else f"{percent:.0f} %"


def _saving(report: Report, row: Row) -> str:
    saving = f"{row.lifetime_speedup.value:.1f} times cheaper"
    encoder = report.speedup(row, "encoder")
    beside = []
    if encoder is not None and report.seconds_basis != "encoder":
        beside.append(f"{encoder.value:.1f} times counting encoders alone")
    if row.f_assumed is not None:
        beside.append(f"if {100 * row.f_assumed:g} % of the images ever reach the full tower")
    return f"{saving} ({'; '.join(beside)})" if beside else saving
