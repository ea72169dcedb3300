"""The picture shows what is found, what can be searched and what the full tower has encoded."""

import dataclasses
from pathlib import Path

import pytest

from evaluation.command import run_command
from evaluation.measuring.values import Machine
from evaluation.reports.indexing.report import Indexing, Look, Rates
from evaluation.reports.record import RecordError
from figures.indexing import IndexingFigureOptions, draw, main


@pytest.fixture
def report():
    """Numbers made up."""
    looks = [
        Look(9.0, 12.0, 0.5, 1000, 50, 10.0),
        Look(59.5, 60.0, 0.1, 9000, 80, 85.0),
        Look(119.0, 120.0, 0.1, 10_000, 5000, 100.0),
    ]
    return Indexing(
        command="made up", queries=4, k=10, m=50, images=10_000, skipped=0, nbytes=10**7,
        refine=0.5, rates=Rates(100, 300.0, 600.0), looks=tuple(looks), seed=0,
        machine=Machine("a processor", 2, 2, "cpu", "float32", "Linux"), versions={},
        date="2026-01-01T00:00:00+00:00",
    )  # fmt: skip


def test_each_line_shows_the_looks(report):
    (axes,) = draw(report).axes
    found = {str(line.get_label()): line.get_xydata().tolist() for line in axes.lines}
    assert found == {
        "of the finished top 10 is found": [[0.2, 10], [1, 85], [2, 100]],
        "of the photos can be searched": [[0.2, 10], [1, 90], [2, 100]],
        "of the photos encoded by the full tower": [[0.2, 0.5], [1, 0.8], [2, 50]],
    }


def test_the_command_draws_a_saved_report(report, tmp_path, capsys):
    report.save(tmp_path / "report.json")
    assert Indexing.load(tmp_path / "report.json") == report
    line = ["--report", str(tmp_path / "report.json")]
    run_command(main, IndexingFigureOptions, "figures.indexing", line)
    assert (tmp_path / "indexing.png").stat().st_size > 10_000
    assert (tmp_path / "indexing.svg").exists()


def test_rates_are_those_of_the_looks_while_the_collection_grew(report):
    assert report.rate == pytest.approx(8000 / 48)
    assert report.rates.slower == 300
    assert report.rates.shared == pytest.approx(200)
    assert report.indexed.seconds == 120
    assert dataclasses.replace(report, looks=report.looks[2:]).rate == pytest.approx(10_000 / 120)
    with pytest.raises(RecordError, match="needs a look"):
        dataclasses.replace(report, looks=())


def test_the_report_that_was_kept_is_still_read():
    kept = Path(__file__).resolve().parents[2] / "docs" / "reports" / "indexing" / "photos.json"
    report = Indexing.load(kept)
    assert report.looks[0].first < 60
    assert report.looks[-1].agreement == 100
