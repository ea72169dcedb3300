"""A report is whole or absent, comes back as it was written, and its tables invent nothing."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from evaluation.measuring.clock import Timing
from evaluation.measuring.machine import Machine, this_machine, versions
from evaluation.reports.report import Report, ReportError, names_of


def test_save_then_load_is_identity(report, tmp_path):
    path = tmp_path / "new" / "report.json"
    report.save(path)
    assert Report.load(path) == report
    assert json.loads(path.read_text())["schema"] == 1
    assert [each.name for each in path.parent.iterdir()] == ["report.json"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_none_is_never_written(report, tmp_path, value):
    path = tmp_path / "report.json"
    report.save(path)
    broken = dataclasses.replace(report.rows[0], f_measured=value)
    with pytest.raises(ReportError, match=r"report\.rows\[0\]\.f_measured"):
        dataclasses.replace(report, rows=(broken,)).save(path)
    assert Report.load(path) == report  # what stood there still stands
    assert len(list(tmp_path.iterdir())) == 1


def test_a_failed_write_leaves_nothing_behind(report, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("evaluation.reports.report.os.replace", fail)
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
        (b'{"schema": 99}', "schema 99.*reads schema 1"),
        (b'{"schema": 1}', "lacks command, model"),
    ],
)
def test_what_is_not_a_report_is_refused_with_its_reason(tmp_path, content, complaint):
    path = tmp_path / "report.json"
    path.write_bytes(content)
    with pytest.raises(ReportError, match=complaint) as refusal:
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
    with pytest.raises(ReportError, match=complaint):
        Report.load(path)


KEPT = sorted((Path(__file__).resolve().parents[2] / "docs" / "reports").glob("*.json"))


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_reports_that_were_kept_are_still_read(path):
    report = Report.load(path)
    assert report.rows
    assert all((row.state_bytes is None) == (row.resumed_seconds is None) for row in report.rows)


def test_a_report_from_before_towers_resumed_is_read(report, tmp_path):
    path = tmp_path / "report.json"
    report.save(path)
    record = json.loads(path.read_text())
    for row in (record["reference"], *record["rows"]):
        assert row.pop("state_bytes") is None
        assert row.pop("resumed_seconds") is None
    path.write_text(json.dumps(record))
    assert Report.load(path) == report


def printed(table, width=120):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table)
    return console.export_text()


def test_the_table_fits_120_columns_whole(report):
    text = printed(report.table())
    assert max(map(len, text.splitlines())) <= 120
    assert "…" not in text
    for cell in ("fisher", "MAC 0.65", "19.8/39.2/46.1", "30.5/60.0/70.5", "(+0.0/-0.2/-0.5)"):
        assert cell in text
    assert "f = 0.1" in text
    assert "1 unreadable images skipped" in text


def test_markdown_is_one_line_a_row_with_every_cell(report):
    lines = report.markdown().splitlines()
    assert len(lines) == 2 + 1 + len(report.rows)
    assert {line.count("|") for line in lines} == {12}
    assert lines[0].split(" | ")[1:5] == [
        "constraint",
        "tower MACs",
        "parameters",
        "R@1/5/10 alone",
    ]
    assert "| uncascaded | none | 17.1 G | 86.0 M | 30.5/60.2/71.0 | – | – | 50.0 |" in lines[2]
    cascade = "30.5/60.0/70.5 (+0.0/-0.2/-0.5) | 88.1 → 88.1"
    assert f"{cascade} | 32.5 | 1.33 | 1.00 | 0.625 |" in lines[3]


def test_the_table_shows_the_seconds_that_the_speedups_are_made_of(report):
    end_to_end = dataclasses.replace(report, seconds_basis="end to end")
    assert "| 39.0 |" in end_to_end.markdown()
    assert "seconds end to end" in printed(end_to_end.table())
    assert "seconds of the encoder only" in printed(report.table())


@pytest.fixture
def resumed(report):
    """The report with its second row resumed, as wide as its numbers may be."""
    row = dataclasses.replace(
        report.rows[1],
        method="early_exit+unaligned resumed",
        state_bytes=25_088,
        resumed_seconds=Timing(0.0305, 0.03, 0.031, 5),
    )
    return dataclasses.replace(report, rows=(report.rows[0], row))


def test_what_resuming_takes_and_keeps_is_shown_where_there_is_any(resumed, report, tmp_path):
    text = printed(resumed.table())
    assert max(map(len, text.splitlines())) <= 120
    assert "…" not in text
    for cell in ("+ 30.5", "resumed", "bytes/", "25.1 k"):
        assert cell in text
    lines = resumed.markdown().splitlines()
    assert {line.count("|") for line in lines} == {13}
    assert "| ms/image | bytes/image |" in lines[0]
    assert "| 32.5 | – |" in lines[3]
    assert "| 40.0 + 30.5 resumed | 25.1 k |" in lines[4]
    assert "bytes" not in report.markdown() + printed(report.table())
    resumed.save(tmp_path / "report.json")
    assert Report.load(tmp_path / "report.json") == resumed


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
