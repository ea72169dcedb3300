"""The experiment, run whole on a tiny CLIP and a folder of images."""

import json
import shutil

import pytest
from transformers import CLIPVisionModelWithProjection

from compress.command import run_command
from evaluation.cascade import CascadeOptions, main
from evaluation.report import Report
from pruning_mechanism import Mask, load, macs
from tests.conftest import tiny_clip, tiny_processor


def run(model, folder, output, *flags):
    given = ["--model", model, "--corpus", "folder", "--corpus-dir", folder, "--output", output]
    given += ["--samples", 12, "--repair-samples", 8, "--batch-size", 4, "--m", 10]
    given += ["--repetitions", 2, "--mac-constraint", 0.5, 0.8, "--heads", 3]
    given += ["--methods", "fisher", "sensitivity", *flags]
    run_command(main, CascadeOptions, "evaluation.cascade", [str(each) for each in given])


def refused(capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code == 2
    return capsys.readouterr().err.strip().split("\n")[-1]


@pytest.fixture(scope="module")
def experiment(clip_directory, folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("experiment") / "out"
    run(clip_directory, folder, output)
    return output


def test_the_report_has_a_row_for_each_first_stage(experiment):
    report = Report.load(experiment / "report.json")
    assert [(row.method, row.constraint) for row in report.rows] == [
        ("fisher", "MAC 0.5"),
        ("fisher", "MAC 0.8"),
        ("sensitivity", "3 heads"),
    ]
    assert (report.images, report.queries, report.m) == (14, 28, (10,))
    assert (experiment / "report.md").read_text() == report.markdown()


def test_first_stages_are_kept_and_cost_what_the_report_says(experiment):
    for row in Report.load(experiment / "report.json").rows:
        directory = experiment / "stages" / row.directory
        mask = Mask.load(directory / "mask.safetensors")
        assert row.encoder_macs == macs(load(directory)).encoder
        assert row.mac_fraction == mask.mac_fraction(tiny_clip().config)


def test_speedups_follow_from_the_reports_own_seconds(experiment):
    report = Report.load(experiment / "report.json")
    last = report.reference.encoder_seconds.median
    for row in report.rows:
        first = row.encoder_seconds.median
        assert row.lifetime_speedup.value == pytest.approx(last / (first + 0.1 * last))
        assert row.lifetime_speedup.low <= row.lifetime_speedup.value <= row.lifetime_speedup.high
        assert 10 / 14 <= row.f_measured <= 1


def test_a_cascade_that_hands_everything_on_is_the_uncascaded_search(
    clip_directory, folder, tmp_path
):
    run(clip_directory, folder, tmp_path / "out", "--m", 14)
    for row in Report.load(tmp_path / "out" / "report.json").rows:
        assert {k: each.value for k, each in row.cascade.difference.items()} == {1: 0, 5: 0, 10: 0}
        assert row.cascade.agreement.value == 100
        assert row.f_measured == 1


def test_stages_made_before_are_measured_without_compressing(
    clip_directory, folder, experiment, tmp_path
):
    stage = experiment / "stages" / "fisher-mac-0.5"
    run(clip_directory, folder, tmp_path / "out", "--stage", stage, clip_directory)
    old = Report.load(experiment / "report.json").rows[0]
    pruned, dense = Report.load(tmp_path / "out" / "report.json").rows
    assert (pruned.method, pruned.constraint, pruned.alone) == ("fisher", "MAC 0.5", old.alone)
    assert dense.one_minus_cosine == pytest.approx(0, abs=1e-6)
    assert dense.alone.agreement.value == 100
    assert not (tmp_path / "out" / "stages").exists()


def test_recoverable_pruning_is_a_method_too(clip_directory, folder, tmp_path):
    flags = ("--methods", "recover", "--repair", "reconstruct")
    run(clip_directory, folder, tmp_path / "out", *flags)
    rows = Report.load(tmp_path / "out" / "report.json").rows
    assert [(row.method, row.constraint) for row in rows] == [
        ("recover", "MAC 0.5"),
        ("recover", "MAC 0.8"),
    ]
    assert all(row.mac_fraction <= float(row.constraint[4:]) for row in rows)


def test_a_vision_tower_alone_is_searched_with_another_models_texts(
    clip_directory, folder, experiment, tmp_path
):
    config = tiny_clip().config.vision_config
    vision = CLIPVisionModelWithProjection.from_pretrained(clip_directory, config=config)
    vision.save_pretrained(tmp_path / "vision")
    tiny_processor().image_processor.save_pretrained(tmp_path / "vision")
    run(tmp_path / "vision", folder, tmp_path / "out", "--text-model", clip_directory)
    whole = Report.load(experiment / "report.json")
    alone = Report.load(tmp_path / "out" / "report.json")
    assert [row.alone for row in alone.rows] == [row.alone for row in whole.rows]
    assert alone.reference.alone == whole.reference.alone


def test_the_report_says_how_many_images_were_really_calibrated_on(
    clip_directory, folder, tmp_path
):
    flags = ("--samples", 99, "--repair-samples", 50, "--methods", "sensitivity")
    run(clip_directory, folder, tmp_path / "out", *flags)
    found = Report.load(tmp_path / "out" / "report.json").calibration
    assert found == "16 images of folder (train), 16 of them for the repair (reconstruct)"


def test_one_caption_an_image_is_a_protocol(clip_directory, folder, tmp_path):
    run(clip_directory, folder, tmp_path / "out", "--captions", "first", "--methods", "fisher")
    report = Report.load(tmp_path / "out" / "report.json")
    assert (report.queries, report.captions, len(report.rows)) == (14, "first", 2)


def test_an_unreadable_image_is_not_searched_and_named(clip_directory, folder, tmp_path, capsys):
    shutil.copytree(folder, tmp_path / "corpus")
    (tmp_path / "corpus" / "validation" / "validation-002.png").write_bytes(b"\x89PNG")
    run(clip_directory, tmp_path / "corpus", tmp_path / "out", "--methods", "fisher")
    report = Report.load(tmp_path / "out" / "report.json")
    assert (report.images, report.queries, len(report.skipped)) == (13, 26, 1)
    assert "validation-002" in report.skipped[0]
    assert "validation-002" in capsys.readouterr().out


def test_calibration_and_evaluation_never_overlap(clip_directory, folder, tmp_path, capsys):
    message = refused(capsys, clip_directory, folder, tmp_path / "out", "--split", "train")
    assert "in both the calibration and the evaluation data" in message
    assert list(tmp_path.iterdir()) == []


def test_a_stage_calibrated_on_the_evaluation_data_is_refused(
    clip_directory, folder, experiment, tmp_path, capsys
):
    stage = experiment / "stages" / "fisher-mac-0.5"
    flags = ("--stage", stage, "--split", "train")
    message = refused(capsys, clip_directory, folder, tmp_path / "out", *flags)
    assert "in both the calibration and the evaluation data" in message


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--m", 0), "--m must be at least"),
        (("--f", 2), "--f must be in [0, 1]"),
        (("--mac-constraint", 0.5, 3), "--mac-constraint must be in (0, 1]"),
        (("--heads", 40), "the vision tower has 12 heads"),
        (("--stage", "nowhere"), "--stage nowhere: no such directory"),
        (("--images", 0), "--images must be at least 1"),
    ],
)
def test_what_cannot_work_is_refused(clip_directory, folder, tmp_path, capsys, flags, reason):
    assert reason in refused(capsys, clip_directory, folder, tmp_path / "out", *flags)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_experiment_leaves_what_was_there(
    clip_directory, folder, experiment, monkeypatch
):
    before = json.loads((experiment / "report.json").read_text())
    monkeypatch.setattr("evaluation.cascade._measure", _interrupted)
    with pytest.raises(SystemExit) as caught:
        run(clip_directory, folder, experiment, "--overwrite")
    assert caught.value.code == 130
    assert json.loads((experiment / "report.json").read_text()) == before
    assert [path.name for path in experiment.parent.iterdir()] == ["out"]


def _interrupted(*_):
    raise KeyboardInterrupt
