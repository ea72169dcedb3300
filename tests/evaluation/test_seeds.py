"""Several seeds of one experiment become one table; what isn't one experiment is refused."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats

from evaluation.command import run_command
from evaluation.measuring.values import Interval
from evaluation.reports.record import RecordError, restored
from evaluation.reports.row import FULL_TOWER, constraint_of
from evaluation.reports.seeds import table as seeds_table
from evaluation.reports.seeds.report import SeedsReport
from evaluation.seeds import SeedsOptions, main, spread, summed_up

DROPS = {"fisher+rescale": (20.0, 24.0, 16.0), "recover": (5.0, 8.0, 4.0)}


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=6))
def test_a_spread_is_the_mean_and_the_t_interval_of_scipy(values):
    found = spread(values)
    assert found.values == tuple(values)
    assert found.mean == pytest.approx(np.mean(values), abs=1e-9)
    if np.std(values) > 1e-9:
        low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
        assert 2 * found.half_width == pytest.approx(high - low, rel=1e-6)
    else:
        assert found.half_width == pytest.approx(0, abs=1e-6)


def test_one_value_has_no_spread():
    with pytest.raises(ValueError, match="at least 2"):
        spread([1.0])


def changed(row, method, drop, seed):
    """A row of a method whose first stage alone loses so many points of agreement."""
    alone = dataclasses.replace(row.alone, agreement=Interval(100 - drop, 0.0, 100.0))
    return dataclasses.replace(
        row, method=method, alone=alone, one_minus_cosine=drop / 1000, compression_seconds=9 + seed
    )


@pytest.fixture
def reports(report):
    """Three seeds of two methods under one constraint; ratios are .25, 1/3 and .25."""
    return [
        dataclasses.replace(
            report,
            seed=seed,
            rows=tuple(
                changed(report.rows[0], name, drops[seed], seed) for name, drops in DROPS.items()
            ),
        )
        for seed in range(3)
    ]


def test_rows_hold_the_spread_of_each_number_over_the_seeds(reports):
    full, fisher, recover = summed_up(reports, "fisher+rescale").rows
    assert (full.method, fisher.method, recover.method) == (FULL_TOWER, *DROPS)
    assert fisher.agreement == spread([80.0, 76.0, 84.0])
    assert recover.one_minus_cosine == spread([0.005, 0.008, 0.004])
    assert recover.compression_seconds == spread([9.0, 10.0, 11.0])
    rows = [report.rows[1] for report in reports]
    assert recover.recall[10] == spread([row.alone.recall[10].value for row in rows])
    assert recover.cascade_agreement == spread([row.cascade.agreement.value for row in rows])
    assert full.cascade_agreement is None


def test_ratios_are_taken_seed_by_seed_to_the_reference_under_the_same_constraint(reports):
    _, fisher, recover = summed_up(reports, "fisher+rescale").rows
    for ratio in (recover.agreement_drop_ratio, recover.cosine_ratio):
        assert ratio.values == pytest.approx((5 / 20, 8 / 24, 4 / 16))
    assert fisher.agreement_drop_ratio == spread([1.0, 1.0, 1.0])
    elsewhere = [
        dataclasses.replace(
            report,
            rows=(dataclasses.replace(report.rows[0], constraint="MAC 0.3"), report.rows[1]),
        )
        for report in reports
    ]
    assert summed_up(elsewhere, "fisher+rescale").rows[2].agreement_drop_ratio is None
    assert summed_up(reports, "absent").rows[2].cosine_ratio is None


def test_a_reference_that_lost_nothing_gives_no_ratio(reports):
    lossless = changed(reports[1].rows[0], "fisher+rescale", 0.0, 1)
    reports[1] = dataclasses.replace(reports[1], rows=(lossless, reports[1].rows[1]))
    recover = summed_up(reports, "fisher+rescale").rows[2]
    assert recover.agreement_drop_ratio is None
    assert recover.cosine_ratio is None


def test_a_number_that_some_seed_lacks_has_no_spread(reports):
    made_before = dataclasses.replace(reports[2].rows[1], compression_seconds=None)
    reports[2] = dataclasses.replace(reports[2], rows=(reports[2].rows[0], made_before))
    assert summed_up(reports, "fisher+rescale").rows[2].compression_seconds is None


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"model": "another"}, "model is .* and another"),
        ({"corpus": "coco"}, "corpus is scenes here and coco"),
        ({"split": "train"}, "split"),
        ({"images": 999}, "images is 1000 here and 999"),
        ({"captions": "first"}, "captions"),
        ({"m": (20,)}, "m is"),
        ({"seed": 0}, "2 reports have seed 0"),
    ],
)
def test_what_is_not_one_experiment_is_refused(reports, change, complaint):
    with pytest.raises(RecordError, match=complaint):
        summed_up([*reports[:2], dataclasses.replace(reports[2], **change)], "fisher+rescale")


@pytest.mark.parametrize("side", [0, 2])
def test_reports_of_other_rows_are_refused_whichever_lacks_one(reports, side):
    reports[side] = dataclasses.replace(reports[side], rows=reports[side].rows[:1])
    with pytest.raises(RecordError, match=r"only some reports have recover MAC 0\.65"):
        summed_up(reports, "fisher+rescale")


def test_a_report_with_a_row_twice_is_refused(reports):
    reports[1] = dataclasses.replace(reports[1], rows=(*reports[1].rows, reports[1].rows[0]))
    with pytest.raises(RecordError, match=r"two rows fisher\+rescale MAC 0\.65"):
        summed_up(reports, "fisher+rescale")


@pytest.fixture
def saved(reports, tmp_path):
    paths = [tmp_path / f"seed-{report.seed}" / "report.json" for report in reports]
    for report, path in zip(reports, paths, strict=True):
        report.save(path)
    return paths


def test_the_command_writes_the_table_and_all_that_is_in_it(saved, reports, tmp_path, capsys):
    options = SeedsOptions(report=tuple(saved), output=tmp_path / "seeds")
    main(options)
    written = json.loads((tmp_path / "seeds" / "seeds.json").read_text())
    assert restored(SeedsReport, written, "seeds") == summed_up(reports, "fisher+rescale")
    says, _, *overview = (tmp_path / "seeds" / "seeds.md").read_text().splitlines()
    assert says.endswith(
        "/ drop in agreement as a share of fisher+rescale's; means over the seeds."
    )
    assert overview[0] == "| method | MAC 0.65 |"
    assert overview[3] == "| recover | 94.3 / 0.0057 / 0.28 |"
    lines = overview[5:]
    assert {line.count("|") for line in lines[:5]} == {11}
    assert lines[4].startswith("| recover | MAC 0.65 | ")
    assert "| 94.3 ± 5.2 | 0.0057 ± 0.0052 |" in lines[4]
    assert lines[4].endswith("| 0.28 ± 0.12 | 0.278 ± 0.120 |")
    assert "95 % t interval" in "".join(lines[5:])
    assert str(options.output) in capsys.readouterr().out
    main(dataclasses.replace(options, overwrite=True))


def test_each_kind_of_constraint_has_its_overview_with_a_dash_where_nothing_was_measured(reports):
    def labelled(row, method: str, constraint: str):
        kind, value = constraint_of(constraint)
        return dataclasses.replace(
            row,
            method=method,
            constraint=constraint,
            constraint_kind=kind,
            constraint_value=value,
        )

    changed = [
        dataclasses.replace(
            report,
            rows=(
                labelled(report.rows[0], "a", "MAC 0.5"),
                labelled(report.rows[0], "b", "MAC 0.1"),
                labelled(report.rows[0], "b", "132 heads"),
                labelled(report.rows[0], "b", "22 heads"),
            ),
        )
        for report in reports
    ]
    lines = seeds_table.overviews(summed_up(changed, "none")).splitlines()
    assert lines[2] == "| method | MAC 0.1 | MAC 0.5 |"
    assert lines[4].startswith("| a | – | ")
    assert lines[5].endswith(" | – |")
    assert lines[7] == "| method | 22 heads | 132 heads |"


def test_columns_that_hold_nothing_are_left_out(reports):
    lines = seeds_table.markdown(summed_up(reports, "absent")).splitlines()
    (header,) = [line for line in lines if line.startswith("| method | constraint |")]
    assert "seconds to compress" in header
    assert "ratio" not in header


def test_the_table_fits_120_columns_whole(reports):
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(seeds_table.terminal(summed_up(reports, "fisher+rescale")))
    text = console.export_text()
    assert "…" not in text
    for cell in ("fisher+rescale", "full tower", "MAC 0.65", "0.0057", "± 0.0052", "± 0.120"):
        assert cell in text


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "at least two --report"),
        (["--report", "{0}"], "at least two --report"),
        (["--report", "{0}", "{0}"], "2 reports have seed 0"),
        (["--report", "{0}", "nowhere.json"], "nowhere.json"),
        (["--report", "{0}", "{1}", "--output", "{here}"], "exists already"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(saved, tmp_path, capsys, arguments, complaint):
    before = sorted(tmp_path.rglob("*"))
    given_paths = [each.format(*saved, here=tmp_path / "seed-0") for each in arguments]
    if "--output" not in arguments:
        given_paths += ["--output", str(tmp_path / "seeds")]
    with pytest.raises(SystemExit) as ending:
        run_command(main, SeedsOptions, "evaluation.seeds", given_paths)
    assert ending.value.code == 2
    said = capsys.readouterr().err
    assert complaint in said
    assert said.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
