"""Rules at equal measured time: read off between a method's rows, never beyond them."""

import dataclasses
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from commands.writing.belongings import files_in
from evaluation.command import run_command
from evaluation.equal_time import EqualTimeOptions, between, compared, main
from evaluation.measuring.values import Interval, Timing
from evaluation.reports.equal_time import table as equal_time_table
from evaluation.reports.record import RecordError


def test_between_two_rows_a_value_is_linear_in_the_logarithm_of_seconds():
    # 0.2 is half of the way from 0.1 to 0.4, and 0.8 all of the way past the row at 0.4
    seconds, values = [0.4, 0.1, 1.6], [80.0, 60.0, 90.0]
    assert between(seconds, values, 0.2) == pytest.approx(70)
    assert between(seconds, values, 0.8) == pytest.approx(85)
    assert between(seconds, values, 0.4 * 4**0.25) == pytest.approx(82.5)


def test_what_was_measured_is_as_it_was_measured_and_beyond_it_is_nothing():
    seconds, values = [0.1, 0.4], [60.0, 80.0]
    assert [between(seconds, values, each) for each in (0.1, 0.4)] == [60, 80]
    assert between(seconds, values, 0.0999) is None
    assert between(seconds, values, 0.4001) is None
    assert between([0.1], [60.0], 0.1) == 60
    assert between([0.1], [60.0], 0.2) is None


rows = st.lists(
    st.tuples(st.floats(1e-4, 10), st.floats(0, 100)),
    min_size=2,
    max_size=8,
    unique_by=lambda row: row[0],
)


@given(rows, st.floats(0, 1))
def test_a_value_lies_between_its_neighbours(measured, place):
    seconds = sorted(each for each, _ in measured)
    wanted = min(max(seconds[0] * (seconds[-1] / seconds[0]) ** place, seconds[0]), seconds[-1])
    found = between(*zip(*measured, strict=True), wanted)
    values = dict(measured)
    ends = [
        (values[before], values[after])
        for before, after in pairwise(seconds)
        if before <= wanted <= after
    ]
    assert any(min(pair) - 1e-9 <= found <= max(pair) + 1e-9 for pair in ends)


def changed(row, method, share, agreement):
    """A row of a method at a share of the 0.05 seconds of the reference; Recall@k follows."""
    alone = dataclasses.replace(
        row.alone,
        agreement=Interval(agreement, 0.0, 100.0),
        recall={k: Interval(agreement / 10 + k, 0.0, 100.0) for k in (1, 5, 10)},
    )
    cascade = dataclasses.replace(row.cascade, agreement=Interval(90 + agreement / 10, 0.0, 100.0))
    seconds = 0.05 * share
    return dataclasses.replace(
        row,
        method=method,
        constraint=f"MAC {share}",
        alone=alone,
        cascade=cascade,
        encoder_seconds=Timing(seconds, seconds, seconds, 5),
        end_to_end_seconds=Timing(2 * seconds, 2 * seconds, 2 * seconds, 5),
    )


def of_rows(report, *wanted):
    return dataclasses.replace(
        report, rows=tuple(changed(report.rows[0], *each) for each in wanted)
    )


@pytest.fixture
def measured(report):
    """`flip` from a tenth to two fifths of the time, `recover` from a fifth up to four fifths."""
    return of_rows(
        report, ("flip", 0.4, 80.0), ("flip", 0.1, 60.0), ("recover", 0.2, 76.0),
        ("recover", 0.8, 96.0),
    )  # fmt: skip


def test_methods_are_compared_at_the_same_seconds(measured):
    found = compared([measured], ["out"], (0.4, 0.2, 0.15))
    assert [each.heading.replace("\n", " ") for each in found.measures] == [
        "agreement@10 alone", "R@1 alone", "R@5 alone", "R@10 alone", "agreement@10 cascade",
    ]  # fmt: skip
    values = {(line.method, line.share): line.values for line in found.lines}
    assert values["flip", 0.2] == pytest.approx((70, 8, 12, 17, 97))
    assert values["recover", 0.4] == pytest.approx((86, 9.6, 13.6, 18.6, 98.6))
    assert values["recover", 0.15] == (None,) * 5
    assert values["flip", 0.15] != (None,) * 5
    assert found.best(0.4) == (86.0, 9.6, 13.6, 18.6, 98.6)
    assert found.best(0.15)[0] == round(values["flip", 0.15][0], 1)


def test_shares_are_of_the_seconds_that_the_speedups_are_made_of(measured):
    slower = dataclasses.replace(
        measured,
        seconds_basis="end to end",
        reference=dataclasses.replace(
            measured.reference, end_to_end_seconds=Timing(0.2, 0.2, 0.2, 5)
        ),
    )
    found = compared([slower], ["out"], (0.1,))  # of 0.2 seconds: a fifth of the reference before
    assert found.lines[0].values[0] == pytest.approx(70)


def test_each_report_is_taken_at_shares_of_its_own_tower_and_names_tell_them_apart(measured):
    reference = measured.reference
    faster = dataclasses.replace(
        of_rows(measured, ("flip", 0.4, 40.0), ("merge", 0.1, 50.0), ("merge", 0.4, 70.0)),
        reference=dataclasses.replace(reference, encoder_seconds=Timing(0.1, 0.1, 0.1, 5)),
    )
    found = compared([measured, faster], ["a", "b"], (0.1,))
    assert [line.method for line in found.lines] == ["flip, a", "recover", "flip, b", "merge"]
    assert [line.values[0] for line in found.lines] == pytest.approx([60, None, None, 60])


@pytest.mark.parametrize("change", [{"m": (20,)}, {"queries": 7}, {"seconds_basis": "end to end"}])
def test_reports_on_other_queries_are_refused(measured, change):
    with pytest.raises(RecordError, match=f"not one experiment: {next(iter(change))} is"):
        compared([measured, dataclasses.replace(measured, **change)], ["a", "b"], (0.5,))


def test_the_best_of_each_column_at_a_share_is_bold(measured):
    lines = equal_time_table.markdown(compared([measured], ["out"], (0.4, 0.15))).splitlines()
    assert lines[0].startswith("| share of seconds | method | agreement@10 alone | R@1 alone |")
    assert lines[2:6] == [
        "| 0.4 | flip | 80.0 | 9.0 | 13.0 | 18.0 | 98.0 |",
        "| 0.4 | recover | **86.0** | **9.6** | **13.6** | **18.6** | **98.6** |",
        "| 0.15 | flip | **65.8** | **7.6** | **11.6** | **16.6** | **96.6** |",
        "| 0.15 | recover | – | – | – | – | – |",
    ]
    explained = " ".join(lines[6:])
    assert "with m = 50 candidates: the share of the full tower's top 10" in explained
    assert "first stage's top 50" in explained
    assert "resumes" not in explained


def test_methods_that_are_equal_to_a_decimal_are_the_best_together(measured):
    also = of_rows(measured, ("flip", 0.4, 80.0), ("merge", 0.4, 80.04), ("rank", 0.4, 79.9))
    lines = equal_time_table.markdown(compared([also], ["out"], (0.4,))).splitlines()
    assert [line.count("**80.0**") for line in lines[2:5]] == [1, 1, 0]


def test_a_comparison_of_towers_that_resume_says_what_their_agreement_is(measured):
    kept = dataclasses.replace(measured.rows[0], state_bytes=25_088)
    resumed = dataclasses.replace(measured, rows=(kept, *measured.rows[1:]))
    assert "where the full tower resumes" in equal_time_table.markdown(
        compared([resumed], ["out"], (0.4,))
    )


def test_the_table_fits_120_columns_whole(measured):
    wide = of_rows(
        measured, ("early_exit+unaligned resumed", 0.4, 80.0), ("recover+head_dims+aligned", 0.4, 1)
    )
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(equal_time_table.terminal(compared([wide], ["out"], (0.4, 0.2))))
    text = console.export_text()
    assert "…" not in text
    for cell in ("early_exit+unaligned resumed", "recover+head_dims+aligned", "80.0", "–"):
        assert cell in text


@pytest.fixture
def saved(measured, tmp_path):
    path = tmp_path / "experiment" / "report.json"
    measured.save(path)
    return path


def test_the_command_writes_the_table_and_nothing_else(saved, measured, tmp_path, capsys):
    options = EqualTimeOptions(report=(saved,), share=(0.4, 0.2), output=tmp_path / "equal")
    main(options)
    assert files_in(tmp_path / "equal") == ["equal_time.md"]
    path = tmp_path / "equal" / "equal_time.md"
    expected = compared([measured], ["experiment"], (0.4, 0.2))
    assert path.read_text() == equal_time_table.markdown(expected)
    assert str(options.output) in capsys.readouterr().out
    main(dataclasses.replace(options, overwrite=True))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            ["--report", "nowhere.json"],
            "nowhere.json: No such file or directory; make one with python -m",
        ),
        (["--report", "{0}", "--share", "0"], "--share must be in (0, 1], found 0"),
        (["--report", "{0}", "--share", "0.5", "1.5"], "--share must be in (0, 1]"),
        (["--report", "{0}", "--output", "{here}"], "exists already"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(saved, tmp_path, capsys, arguments, complaint):
    before = sorted(tmp_path.rglob("*"))
    flags = [each.format(saved, here=saved.parent) for each in arguments]
    if "--output" not in arguments:
        flags += ["--output", str(tmp_path / "equal")]
    with pytest.raises(SystemExit) as ending:
        run_command(main, EqualTimeOptions, "evaluation.equal_time", flags)
    assert ending.value.code == 2
    said = capsys.readouterr().err
    assert complaint in said
    assert said.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_report_without_first_stages_is_refused(measured):
    with pytest.raises(RecordError, match="no first stage"):
        compared([dataclasses.replace(measured, rows=())], ["out"], (0.5,))
