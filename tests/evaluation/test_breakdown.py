"""The breakdown, run whole on tiny CLIPs; nothing is asserted of how long anything takes."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from cascade import lifetime_speedup
from cascade.stages.towers import Towers
from compress.command import run_command
from corpora.photographs.camera import Camera
from corpora.photographs.making import photograph
from evaluation.breakdown import BreakdownOptions, main
from evaluation.breaking_down.contending import Contender
from evaluation.breaking_down.files import Wanted, chosen
from evaluation.breaking_down.timing import on_cores
from evaluation.measuring.settings import Settings, SettingsError, loadings
from evaluation.reports.breakdown.report import FILE, Breakdown, open_breakdown
from tests.conftest import tiny_clip, tiny_processor

KEPT = sorted((Path(__file__).resolve().parents[2] / "docs/reports/breakdown").glob("*.json"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Six camera files, one of which has no thumbnail, and what isn't a photograph."""
    directory = tmp_path_factory.mktemp("photos")
    for number in range(6):
        picture = Image.new("RGB", (40, 30), (40 * number, 90, 120))
        camera = Camera(pixels=48_000, absent=float(number == 0), stale=0.0)
        content = photograph(picture, camera, number, 0).content
        (directory / f"{number}.jpg").write_bytes(content)
    (directory / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    (directory / "notes.txt").write_text("nothing")
    return directory


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A first stage: a CLIP of one layer."""
    directory = tmp_path_factory.mktemp("first") / "small"
    tiny_clip(seed=1, num_hidden_layers=1).save_pretrained(directory)
    tiny_processor().save_pretrained(directory)
    return directory


def run(output, *flags) -> Breakdown:
    line = [str(flag) for flag in ("--output", output, "--repetitions", 2, *flags)]
    run_command(main, BreakdownOptions, "evaluation.breakdown", line)
    return Breakdown.load(output / FILE)


@pytest.fixture(scope="module")
def measured(tmp_path_factory, photos, clip_directory, small):
    output = tmp_path_factory.mktemp("breakdown") / "out"
    run(output, "--files", photos, "--last", clip_directory, "--first", small, "--f", 0.2)
    return output


@pytest.fixture
def report(measured) -> Breakdown:
    return Breakdown.load(measured / FILE)


def test_each_contender_is_a_way_with_its_role(report):
    assert [(way.name, way.role, way.runtime) for way in report.ways] == [
        ("transformers, tiny", "plain", "transformers"),
        ("tiny", "full tower", "torch"),
        ("small", "first stage", "torch"),
    ]
    assert {(way.reads, way.dtype, way.threads) for way in report.ways} == {("full", "float32", 1)}


def test_every_step_was_timed_in_every_turn(report):
    for way in report.ways:
        for timing in (way.split.decode, way.split.prepare, way.split.encode, way.end_to_end):
            assert timing.repetitions == 2
            assert 0 < timing.lower_quartile <= timing.median <= timing.upper_quartile


def test_photographs_are_described_and_broken_ones_named(report, photos):
    sizes = sorted(path.stat().st_size for path in photos.glob("?.jpg"))
    assert report.files.images == 6
    assert report.files.nbytes == (sizes[2] + sizes[3]) / 2
    assert (report.files.thumbnails, report.files.formats) == (5, {"JPEG": 6})
    assert report.files.pixels == 256 * 192
    assert report.skipped == ("broken.jpg",)
    total = sum(sizes)
    for way in report.ways:
        assert total - 6 * 64 <= 6 * way.nbytes, "all was read"
    assert 6 * report.ways[0].nbytes == total


def test_speedups_follow_from_the_seconds(report):
    plain, last, first = report.ways
    for way in report.ways:
        assert way.faster.value == pytest.approx(plain.end_to_end.median / way.end_to_end.median)
        assert way.faster_encoder.value == pytest.approx(
            plain.split.encode.median / way.split.encode.median
        )
    assert plain.lifetime is None
    assert last.lifetime is None
    seconds = [first.end_to_end.median, last.end_to_end.median]
    encoders = [first.split.encode.median, last.split.encode.median]
    assert first.lifetime.last == "tiny"
    assert first.lifetime.same.value == pytest.approx(lifetime_speedup(seconds, 0.2))
    assert first.lifetime.encoder.value == pytest.approx(lifetime_speedup(encoders, 0.2))
    assert first.lifetime.plain.value == pytest.approx(
        lifetime_speedup(seconds, 0.2, plain.end_to_end.median)
    )
    assert first.lifetime.plain_encoder.value == pytest.approx(
        lifetime_speedup(encoders, 0.2, plain.split.encode.median)
    )


def test_report_and_table_say_the_same(measured, report):
    text = (measured / "report.md").read_text()
    for way in report.ways:
        assert f"| {way.name} | {way.role} |" in text
        assert f"{1000 * way.split.encode.median:.2f}" in text
    life = report.ways[-1].lifetime
    assert f"{life.same.value:.2f} ({life.encoder.value:.2f})" in text
    assert "f = 0.2" in text


def test_scenes_and_archives_are_timed_as_files(tmp_path):
    wanted = Wanted((), "scenes", None, "validation", 3, 0)
    found = chosen(wanted, tmp_path)
    assert len(found.paths) == 3
    assert all(path.parent == tmp_path for path in found.paths)
    assert found.facts.name == "scenes (validation)"
    assert found.facts.formats == {"PNG": 3}


def test_the_seed_draws_the_photographs(photos, tmp_path):
    def names(seed: int, images: int = 3) -> list[str]:
        wanted = Wanted((str(photos / "?.jpg"),), "scenes", None, "validation", images, seed)
        return [path.name for path in chosen(wanted, tmp_path).paths]

    assert names(0) == names(0)
    assert names(0) != names(1) or names(0) != names(2)
    assert sorted(names(0, 100)) == [f"{number}.jpg" for number in range(6)]


def test_several_threads_and_settings_are_rows_of_their_own(
    tmp_path, photos, clip_directory, small, monkeypatch
):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr("os.sched_setaffinity", lambda *_: None, raising=False)
    other = tmp_path / "elsewhere" / "small"
    shutil.copytree(small, other)
    report = run(
        tmp_path / "out", "--files", photos, "--last", clip_directory, "--first", small, other,
        "--no-plain", "--threads", 1, 2, "--repetitions", 1,
    )  # fmt: skip
    assert report.threads == (1, 2)
    assert [(way.name, way.threads) for way in report.ways] == [
        (name, threads) for threads in (1, 2) for name in ("tiny", "small", "small (2)")
    ]
    assert all(way.faster is None for way in report.ways)
    assert all(way.lifetime.plain is None for way in report.ways if way.lifetime)


def test_cores_and_threads_are_given_back():
    before = torch.get_num_threads()
    with on_cores(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
    with pytest.raises(ValueError, match="10000 threads were asked for"), on_cores(10_000):
        pass


def test_settings_are_read():
    assert Settings.of("stored").given == ()
    found = Settings.of("dtype=int8,reads=thumbnail")
    assert found.given == (("reads", "thumbnail"), ("dtype", "int8"))
    assert found.label == "thumbnail int8"
    assert Settings.of("jpeg=cpu").label == "JPEG by CPU"
    assert Settings.of("jpeg=cpu").decodes_on_cpu
    Settings.of("jpeg=cpu").check("cpu")


@pytest.mark.parametrize("text", ["reads=half", "runtime=abacus", "dtype=float8", "jpeg=gpu"])
def test_settings_that_no_stage_has_are_refused_before_the_work(text):
    with pytest.raises(SettingsError, match=text.partition("=")[2]):
        Settings.of(text).check("cpu")


def test_a_stage_decodes_where_settings_say(clip_directory):
    stages = [
        Contender("full tower", str(clip_directory), Settings.of(text)).open("cpu", 2).stage
        for text in ("stored", "jpeg=cpu")
    ]
    assert [stage.preparation.decoder for stage in stages] == [None, None]  # a CPU has no other
    (loading,) = loadings(["jpeg=cpu"], Towers(), None)
    assert loading.decodes_on_cpu
    assert loading.load(str(clip_directory)).preparation.decoder is None


@pytest.mark.parametrize("text", ["", "reads", "reads=", "=x", "colour=red", "dtype=a,dtype=b"])
def test_settings_that_say_nothing_are_refused(text):
    with pytest.raises(SettingsError):
        Settings.of(text)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (("--files", "nowhere"), "no such file"),
        (("--first-as", "colour=red"), "no setting of a stage"),
        (("--threads", "10000"), "there are"),
        (("--last", "one", "one"), "name each once"),
        (("--last", "demo/clip-scenes-first", "--first-as", "dtype=int8"), "no --first"),
        (("--plain", "x", "--no-plain"), "--no-plain"),
        (("--files", ".", "--corpus", "coco"), "--corpus"),
    ],
)
def test_what_cannot_be_timed_is_said_in_a_line(tmp_path, capsys, line, said):
    with pytest.raises(SystemExit) as ended:
        run(tmp_path / "out", *line)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_reports_of_the_documentation_are_read(path):
    assert open_breakdown(path).ways


def test_a_report_of_two_ways_of_one_name_is_refused(measured, tmp_path):
    record = json.loads((measured / FILE).read_text())
    record["ways"].append(record["ways"][0])
    (tmp_path / FILE).write_text(json.dumps(record))
    with pytest.raises(ValueError, match="same name and threads"):
        Breakdown.load(tmp_path / FILE)
