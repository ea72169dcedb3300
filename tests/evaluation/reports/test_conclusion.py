"""The one sentence says what the report holds, of the cascade that it should be said of."""

from dataclasses import replace

import pytest

from evaluation.reports.conclusion import best_cascade, conclusion
from evaluation.reports.record import RecordError
from tests.evaluation.conftest import around, result, row


def stage(constraint, fraction, cascade):
    return replace(row("joint", constraint, fraction), cascade=cascade)


SAME = result(30.5, 60.25, 71.0)
NEARLY = result(30.5, 60.0, 70.6)
WORSE = result(20.0, 40.0, 50.0)


def test_the_sentence_has_the_figures_of_the_report(report):
    said = conclusion(replace(report, rows=(stage("latency 0.1", 0.1, SAME),)))
    assert said.startswith("The first stage joint latency 0.1 takes 10 % of the full tower's time;")
    assert "finds 88.1 % of the same top ten images" in said
    assert "its Recall@10 is 71.0 % where the full tower alone reaches 71.0 %" in said
    assert said.endswith("5.0 times cheaper (if 10 % of the images ever reach the full tower).")


def test_seconds_are_those_that_the_speedups_are_made_of(report):
    measured = replace(report, rows=(stage("latency 0.1", 0.1, SAME),))
    (only,) = measured.rows
    slow = replace(only.end_to_end_seconds, median=0.03)
    measured = replace(measured, rows=(replace(only, end_to_end_seconds=slow),))
    assert "takes 10 % of" in conclusion(measured)
    assert "takes 50 % of" in conclusion(replace(measured, seconds_basis="end to end"))


def test_encoders_alone_are_counted_beside_what_a_user_waits_for(report):
    (only,) = replace(report, rows=(stage("latency 0.1", 0.1, SAME),)).rows
    counted = replace(only, encoder_speedup=around(6.54))
    said = conclusion(replace(report, rows=(counted,), seconds_basis="end to end"))
    assert said.endswith(
        "5.0 times cheaper (6.5 times counting encoders alone; if 10 % of the images ever reach "
        "the full tower)."
    )
    assert "encoders" not in conclusion(replace(report, rows=(counted,)))


def test_all_images_found_are_the_same_ten(report):
    whole = replace(SAME, agreement=around(100.0, 0.0))
    said = conclusion(replace(report, rows=(stage("latency 0.1", 0.1, whole),)))
    assert "finds the same top ten images, its" in said


@pytest.mark.parametrize(
    ("cascades", "chosen"),
    [
        ((SAME, SAME, SAME), 0.1),  # the cheapest
        ((WORSE, NEARLY, SAME), 0.2),  # the cheapest that is as good
        ((WORSE, WORSE, result(20.0, 50.0, 60.0)), 0.3),  # the best, where none is as good
    ],
)
def test_it_is_about_the_cheapest_cascade_that_is_as_good(report, cascades, chosen):
    fractions = (0.1, 0.2, 0.3)
    rows = [stage(f"latency {f}", f, each) for f, each in zip(fractions, cascades, strict=True)]
    for order in (rows, rows[::-1]):
        assert best_cascade(replace(report, rows=tuple(order))).constraint_value == chosen


def test_a_report_without_first_stages_has_no_conclusion(report):
    with pytest.raises(RecordError, match="no first stage"):
        conclusion(replace(report, rows=()))
