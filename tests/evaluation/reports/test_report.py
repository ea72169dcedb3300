"""A report is whole or absent, comes back as it was written, and its tables invent nothing."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from evaluation.measuring.machine import this_machine, versions
from evaluation.measuring.values import Interval, Machine, Timing
from evaluation.reports import table
from evaluation.reports.record import RecordError
from evaluation.reports.report import Report, names_of, open_report
from evaluation.reports.row import FULL_TOWER, constraint_of


def test_save_then_load_is_identity(report, tmp_path):
    path = tmp_path / "new" / "report.json"
    report.save(path)
    assert Report.load(path) == report
    assert json.loads(path.read_text())["schema"] == 2
    assert [each.name for each in path.parent.iterdir()] == ["report.json"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_none_is_never_written(report, tmp_path, value):
    path = tmp_path / "report.json"
    report.save(path)
    broken = dataclasses.replace(report.rows[0], f_measured=value)
    with pytest.raises(RecordError, match=r"report\.rows\[0\]\.f_measured"):
        dataclasses.replace(report, rows=(broken,)).save(path)
    assert Report.load(path) == report  # what stood there still stands
    assert len(list(tmp_path.iterdir())) == 1


def test_a_failed_write_leaves_nothing_behind(report, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("evaluation.reports.record.os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        report.save(tmp_path / "report.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"not JSON", "isn't JSON"),
        (b"\xff\xfe\x00", "isn't JSON"),
        (b"[1, 2]", "no schema"),
        (b"{}", "no schema"),
        (b'{"schema": 99}', "schema 99.*reads schema 2"),
        (b'{"schema": 2}', "lacks model, corpus"),
        (b'{"schema": 1}', "lacks model, corpus"),
        (b'{"schema": 1, "rows": [3]}', "lacks model, corpus"),
    ],
)
def test_what_is_not_a_report_is_refused_with_its_reason(tmp_path, content, complaint):
    path = tmp_path / "report.json"
    path.write_bytes(content)
    with pytest.raises(RecordError, match=complaint) as refusal:
        Report.load(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda record: record.update(surprise=1), "surprise"),
        (lambda record: record["rows"][1].pop("parameters"), r"rows\[1\] lacks parameters"),
        (lambda record: record["machine"].update(cores="two"), "machine.cores should be int"),
        (lambda record: record["rows"][0].update(alone=None), r"rows\[0\].alone should be"),
        (lambda record: record.update(rows={}), "rows should be a list"),
        (lambda record: record.update(seconds_basis="guess"), "seconds_basis"),
    ],
)
def test_a_damaged_report_is_refused_with_the_place(report, tmp_path, change, complaint):
    path = tmp_path / "report.json"
    report.save(path)
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    with pytest.raises(RecordError, match=complaint):
        Report.load(path)


KEPT = sorted((Path(__file__).resolve().parents[3] / "docs" / "reports").glob("*.json"))


def label(kind, value):
    """How rules call what they were asked for."""
    return f"{value:g} heads" if kind == "heads" else f"{kind} {value:g}"


def test_there_are_reports_that_were_kept():
    assert {json.loads(path.read_text())["schema"] for path in KEPT} >= {1}


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_reports_that_were_kept_are_still_read(path):
    report = Report.load(path)
    assert report.rows
    assert all((row.state_bytes is None) == (row.resumed_seconds is None) for row in report.rows)
    assert (report.reference.method, report.reference.rule) == (FULL_TOWER, FULL_TOWER)
    for row in report.rows:
        assert row.constraint == label(row.constraint_kind, row.constraint_value)
        words = "+".join(filter(None, (row.rule, row.variant)))
        assert row.method.removesuffix(" resumed") == words


def test_a_report_from_before_towers_resumed_is_read(report, tmp_path):
    path = tmp_path / "report.json"
    report.save(path)
    record = json.loads(path.read_text())
    for row in (record["reference"], *record["rows"]):
        assert row.pop("state_bytes") is None
        assert row.pop("resumed_seconds") is None
    path.write_text(json.dumps(record))
    assert Report.load(path) == report


def test_a_report_of_schema_1_is_read_as_the_same_report(resumed, tmp_path):
    """It called the full tower uncascaded, and its labels alone named rules and constraints."""
    path = tmp_path / "report.json"
    resumed.save(path)
    record = json.loads(path.read_text()) | {"schema": 1}
    record["reference"]["method"] = "uncascaded"
    for row in (record["reference"], *record["rows"]):
        del row["rule"], row["variant"], row["constraint_kind"]
        row["constraint_value"] = row["mac_fraction"]  # as it was of stages made before
    path.write_text(json.dumps(record))
    assert Report.load(path) == resumed


@given(kind=st.sampled_from(("MAC", "latency", "mask", "r", "layer")), value=st.floats(0, 1e7))
def test_a_constraint_is_read_back_from_its_label(kind, value):
    found = constraint_of(label(kind, value))
    assert found == (kind, float(f"{value:g}"))


@pytest.mark.parametrize(
    ("label", "constraint"),
    [
        ("77 heads", ("heads", 77.0)),
        ("ridge", ("ridge", None)),
        ("", (None, None)),
        ("MAC 0.3, mask 0.5", ("MAC 0.3, mask 0.5", None)),
    ],
)
def test_labels_of_other_forms_are_read_as_far_as_they_say_something(label, constraint):
    assert constraint_of(label) == constraint


def test_a_report_that_is_not_there_is_refused_with_what_makes_one(tmp_path):
    path = tmp_path / "missing.json"
    with pytest.raises(RecordError) as refusal:
        open_report(path, "evaluation.masking")
    assert str(path) in str(refusal.value)
    assert str(refusal.value).endswith("make one with python -m evaluation.masking")


def printed(shown, width=120):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(shown)
    return console.export_text()


def test_the_table_fits_120_columns_whole(report):
    text = printed(table.terminal(report))
    assert max(map(len, text.splitlines())) <= 120
    assert "…" not in text
    for cell in ("fisher", "MAC 0.65", "19.8/39.2/46.1", "30.5/60.0/70.5", "(+0.0/-0.2/-0.5)"):
        assert cell in text
    assert "f = 0.1" in text
    assert "1 unreadable image skipped" in text


def test_markdown_is_one_line_a_row_with_every_cell(report):
    lines = table.markdown(report).splitlines()
    assert len(lines) == 2 + 1 + len(report.rows)
    assert {line.count("|") for line in lines} == {10}
    assert lines[0].split(" | ")[1:5] == [
        "constraint",
        "tower MACs",
        "parameters",
        "R@1/5/10 alone",
    ]
    assert "| full tower |  | 17.1 G | 86.0 M | 30.5/60.2/71.0 | – | – | 50.0 |" in lines[2]
    cascade = "30.5/60.0/70.5 (+0.0/-0.2/-0.5) | 88.1 → 88.1"
    assert f"{cascade} | 32.5 | 1.33 |" in lines[3]


def test_the_table_shows_the_seconds_that_the_speedups_are_made_of(report):
    end_to_end = dataclasses.replace(report, seconds_basis="end to end")
    assert "| 39.0 (32.5) | 1.33 |" in table.markdown(end_to_end), "no encoder speedup was counted"
    counted = dataclasses.replace(
        end_to_end,
        rows=tuple(
            dataclasses.replace(row, encoder_speedup=Interval(5.7, 5.6, 5.8))
            for row in end_to_end.rows
        ),
    )
    assert "| 39.0 (32.5) | 1.33 (5.70) |" in table.markdown(counted)
    assert "| ms/image (encoder) | lifetime speedup f = 0.1 (encoder) |" in table.markdown(counted)
    assert [
        counted.speedup(counted.rows[0], basis).value for basis in ("end to end", "encoder")
    ] == [
        pytest.approx(1 / 0.75),
        5.7,
    ]
    assert "(encoder)" not in table.markdown(report)
    assert report.speedup(report.rows[0], "end to end") is None
    assert "seconds end to end" in printed(table.terminal(end_to_end))
    assert "seconds of the encoder only" in printed(table.terminal(report))


@pytest.fixture
def resumed(report):
    """The report with its second row resumed, as wide as its numbers may be."""
    row = dataclasses.replace(
        report.rows[1],
        method="early_exit+unaligned resumed",
        rule="early_exit",
        variant="unaligned",
        state_bytes=25_088,
        resumed_seconds=Timing(0.0305, 0.03, 0.031, 5),
    )
    return dataclasses.replace(report, rows=(report.rows[0], row))


def test_what_resuming_takes_and_keeps_is_shown_where_there_is_any(resumed, report, tmp_path):
    text = printed(table.terminal(resumed))
    assert max(map(len, text.splitlines())) <= 120
    assert "…" not in text
    for cell in ("+ 30.5", "resumed", "bytes/", "25.1 k"):
        assert cell in text
    lines = table.markdown(resumed).splitlines()
    assert {line.count("|") for line in lines} == {11}
    assert "| ms/image | bytes/image |" in lines[0]
    assert "| 32.5 | – |" in lines[3]
    assert "| 40.0 + 30.5 resumed | 25.1 k |" in lines[4]
    assert "bytes" not in table.markdown(report) + printed(table.terminal(report))
    resumed.save(tmp_path / "report.json")
    assert Report.load(tmp_path / "report.json") == resumed


def test_per_query_speedup_and_f_measured_are_columns_where_rows_differ_in_them(report):
    lines = table.markdown(report).splitlines()
    assert "per-query" not in lines[0]
    assert "f measured" not in lines[0]
    assert "f measured: 0.625" in printed(table.terminal(report))
    changed = dataclasses.replace(report.rows[1], query_speedup=1.5, f_measured=0.5)
    lines = table.markdown(dataclasses.replace(report, rows=(report.rows[0], changed))).splitlines()
    assert lines[0].endswith("| lifetime speedup f = 0.1 | per-query speedup | f measured |")
    assert [line.split(" | ")[-2:] for line in lines[2:]] == [
        ["–", "– |"],
        ["1.00", "0.625 |"],
        ["1.50", "0.500 |"],
    ]


def test_the_machine_and_versions_are_those_of_this_process():
    machine = this_machine("cpu", torch.bfloat16)
    assert isinstance(machine, Machine)
    assert machine.threads == torch.get_num_threads()
    assert machine.cores >= 1
    assert machine.cpu
    assert (machine.device, machine.dtype) == ("cpu", "bfloat16")
    found = versions(["torch", "no-such-package"])
    assert found["torch"] == torch.__version__.split("+")[0] or found["torch"] == torch.__version__
    assert found["no-such-package"] == "not installed"
    assert "python" in found


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/one/report.json", "a/two/report.json"], ["one", "two"]),
        (["reports/one.json", "reports/two.json"], ["one", "two"]),
        (["a/out/report.json", "b/out/report.json"], ["a/out/report.json", "b/out/report.json"]),
    ],
)
def test_reports_are_told_apart_by_the_shortest_names_that_do(paths, names):
    assert names_of([Path(each) for each in paths]) == names
