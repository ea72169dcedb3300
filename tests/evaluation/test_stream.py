"""A stream of queries as a user has it counted: real files, checkpoints, report and figure."""

import json

import pytest

from cascade import Collection
from cascade.search import SearchOptions
from cascade.search import main as search
from cascade.terminal.command import run_command
from evaluation.lifetime.reliability import reliability
from evaluation.measuring.values import Running
from evaluation.plan import PlanOptions
from evaluation.plan import main as plan
from evaluation.reports.record import RecordError
from evaluation.reports.stream import Bin, Curve, Stream, open_stream
from evaluation.stream import StreamOptions, main
from figures.stream import StreamFigureOptions
from figures.stream import main as draw
from tests.evaluation.test_plan import IMAGES, collection, made  # noqa: F401 – fixtures

pytest.importorskip("lancedb")


def status_of(main, options, name, *line):
    try:
        run_command(main, options, name, list(map(str, line)))
    except SystemExit as ended:
        return ended.code
    return 0


def test_a_stream_is_counted_reported_and_drawn(collection, tmp_path, capsys):  # noqa: F811
    line = [collection, "--output", tmp_path / "out", "--largest", 100, "--streams", 2]
    assert status_of(main, StreamOptions, "evaluation.stream", *line) == 2
    assert "isn't calibrated: python -m evaluation.plan" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    planned = ["--k", 3, "--agreement", 0.6, "--m", "auto", "--drawn", 300]
    assert status_of(plan, PlanOptions, "evaluation.plan", collection, *planned) == 0
    capsys.readouterr()
    query = [collection, "a picture 3", "--k", 3, "--m", "auto", "--json", "--cold"]
    assert status_of(search, SearchOptions, "cascade.search", *query) == 0
    hits = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(hits) == 3
    assert all(0 < hit["probability"] <= 1 for hit in hits)
    assert status_of(main, StreamOptions, "evaluation.stream", *line) == 0
    said = capsys.readouterr().out
    assert "expected calibration error" in said
    report = open_stream(tmp_path / "out" / "report.json")
    assert (report.images, report.k, report.texts) == (IMAGES, 3, IMAGES + 1)
    assert report.queries[0] == 1
    assert report.queries[-1] == 100
    fixed, auto = report.curves
    with Collection.open(collection) as opened:
        assert fixed.m == opened.m[0]
        assert 3 <= auto.m <= opened.calibration.depth
    for curve in report.curves:
        assert 0.5 < curve.agreement <= 1
        assert all(list(counts) == sorted(counts) for counts in curve.encoded)
        assert sum(each.hits for each in curve.reliability) == 3 * report.texts
        assert report.speedups(curve) == sorted(report.speedups(curve), reverse=True)
    assert fixed.encoded[0][0] == fixed.m
    assert all(alone > 0 for alone in report.encoder_seconds)
    assert report.running == (Running("full", "torch", "float32"),) * 2
    first, last = report.encoder_seconds
    for f, speedup in zip(report.shares(auto), report.encoder_speedups(auto), strict=True):
        assert speedup == pytest.approx(last / (first + f * last))
    assert "encoder only" in said
    assert "first stage reads full, torch float32; last stage reads full" in " ".join(said.split())
    figure = ["--report", tmp_path / "out" / "report.json"]
    assert status_of(draw, StreamFigureOptions, "figures.stream", *figure) == 0
    assert (tmp_path / "out" / "stream.png").stat().st_size > 10_000
    entries = json.loads((tmp_path / "out" / "report.json").read_text())
    for since in ("encoder_seconds", "running"):
        del entries[since]
    (tmp_path / "old.json").write_text(json.dumps(entries))
    old = open_stream(tmp_path / "old.json")
    assert old.encoder_speedups(old.curves[0]) is None
    assert (
        status_of(draw, StreamFigureOptions, "figures.stream", "--report", tmp_path / "old.json")
        == 0
    )


def test_a_report_of_other_queries_is_none(tmp_path):
    bins = reliability([0.5], [True])
    assert bins == (Bin(0.5, 0.6, 1, 0.5, 1.0),)
    entries = {"schema": 1, "curves": [{"name": "fixed", "encoded": [[1, 2]]}]}
    (tmp_path / "report.json").write_text(json.dumps(entries))
    with pytest.raises(RecordError, match="not a whole report of a stream"):
        Stream.load(tmp_path / "report.json")
    with pytest.raises(RecordError, match=r"make one with python -m evaluation\.stream"):
        open_stream(tmp_path / "nothing.json")
    curve = Curve("fixed", 5.0, None, ((1, 2, 3),))
    fields = {"command": "", "images": 9, "texts": 1, "exponent": 1.0, "k": 3, "target": 0.9}
    with pytest.raises(RecordError, match="isn't of these queries"):
        Stream(
            **fields,
            learnt_from="",
            seconds=(1.0, 2.0),
            queries=(1, 10),
            curves=(curve,),
            machine=None,
        )
