"""Zero-shot classification, run whole on tiny CLIPs and folders of three colours."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPVisionModelWithProjection

from cascade import Stage
from compress.choices import DEMO_FIRST_STAGE, DEMO_MODEL
from compress.command import run_command
from evaluation.reports.record import RecordError
from evaluation.reports.zero_shot import table as zero_shot_table
from evaluation.reports.zero_shot.report import ZeroShot
from evaluation.zero_shot import ZeroShotOptions, main
from tests.conftest import COLOURS, tiny_clip, tiny_processor

ROOT = Path(__file__).resolve().parents[2]
PER_CLASS = 6


def run(output: Path, *flags) -> ZeroShot:
    arguments = [str(each) for each in ("--output", output, "--repetitions", 1, *flags)]
    run_command(main, ZeroShotOptions, "evaluation.zero_shot", arguments)
    return ZeroShot.load(output / "report.json")


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """Six noisy pictures of each of three colours, in class directories."""
    root = tmp_path_factory.mktemp("colours") / "colours"
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for number in range(PER_CLASS):
            pixels = np.clip(rng.normal(colour, 60, (20, 24, 3)), 0, 255).astype("uint8")
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Another CLIP, with a text tower of its own."""
    directory = tmp_path_factory.mktemp("other") / "other"
    tiny_clip(seed=1).save_pretrained(directory)
    tiny_processor().save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def vision(tmp_path_factory, clip_directory):
    """The vision tower of the tiny CLIP alone."""
    directory = tmp_path_factory.mktemp("vision") / "vision"
    config = tiny_clip().config.vision_config
    CLIPVisionModelWithProjection.from_pretrained(clip_directory, config=config).save_pretrained(
        directory
    )
    tiny_processor().image_processor.save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def measured(tmp_path_factory, clip_directory, other, vision, colours):
    output = tmp_path_factory.mktemp("zero-shot") / "out"
    run(
        output, "--stages", other, vision, clip_directory, "--datasets", f"folder:{colours}",
        "--templates", "photo", "--m", 2,
    )  # fmt: skip
    return output


def by_hand(stage: Stage, colours: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores [18, 3] in float64 and labels, by the standard formula, in the order of the names."""
    names = sorted(COLOURS)
    files = [file for name in names for file in sorted((colours / name).iterdir())]
    images = stage.encode_images(files).double()
    texts = stage.encode_texts([f"a photo of a {name}." for name in names]).double()
    return images @ texts.T, torch.arange(3).repeat_interleave(PER_CLASS)


def test_accuracies_are_those_of_the_standard_formula(measured, clip_directory, other, colours):
    report = ZeroShot.load(measured / "report.json")
    (task,) = report.tasks
    full, labels = by_hand(Stage.load(clip_directory), colours)
    own, _ = by_hand(Stage.load(other), colours)
    for accuracy, scores in ((task.full, full), (task.stages[0], own)):
        right = scores.argmax(dim=1) == labels
        assert accuracy.top[1].value == pytest.approx(100 * right.double().mean().item())
        shares = right.view(3, PER_CLASS).double().mean(dim=1)
        assert accuracy.per_class == pytest.approx((100 * shares).tolist())
        assert accuracy.mean_per_class == pytest.approx(100 * shares.mean().item())
    two = own.topk(2, dim=1).indices
    again = two.gather(1, full.gather(1, two).argmax(dim=1, keepdim=True)).squeeze(1)
    behind = 100 * (again == labels).double().mean().item()
    assert task.stages[0].cascade.value == pytest.approx(behind)
    assert task.stages[0].difference.value == pytest.approx(behind - task.full.top[1].value)


def test_a_vision_tower_alone_borrows_the_full_towers_texts(measured):
    (task,) = ZeroShot.load(measured / "report.json").tasks
    other, vision = task.stages
    assert vision.top == task.full.top
    assert (vision.cascade, vision.difference.value) == (task.full.top[1], 0)
    assert other.top != task.full.top


def test_the_report_says_what_was_done(measured):
    report = ZeroShot.load(measured / "report.json")
    (task,) = report.tasks
    assert [stage.name for stage in report.stages] == ["tiny", "other", "vision"]
    assert report.full_tower == "tiny"
    assert (task.classes, task.images) == (("blue", "green", "red"), (6, 6, 6))
    assert (task.m, task.templates, task.name) == (2, ("a photo of a {}.",), "folder:colours")
    assert set(task.full.top) == {1}  # with three classes, top-3 says nothing
    assert task.full.top[1].low <= task.full.top[1].value <= task.full.top[1].high
    assert "folder:colours" in report.command
    assert "/" not in report.command.replace("python -m", "")  # no path of this machine
    assert (measured / "report.md").read_text() == zero_shot_table.markdown(report)


def test_confusion_matrices_are_written_for_each_stage(measured):
    (task,) = ZeroShot.load(measured / "report.json").tasks
    places = {place.name for place in (measured / "confusion" / "folder-colours").iterdir()}
    assert places == {"tiny.csv", "other.csv", "vision.csv"}
    with (measured / "confusion" / "folder-colours" / "tiny.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["class", "blue", "green", "red"]
    matrix = np.array([row[1:] for row in rows], dtype=int)
    assert matrix.sum(axis=1).tolist() == [6, 6, 6]
    assert (100 * matrix.diagonal() / 6).tolist() == pytest.approx(list(task.full.per_class))
    wrong = {(one.label, one.predicted): one.images for one in task.full.confused}
    assert sum(wrong.values()) == matrix.sum() - matrix.trace()


def test_several_data_sets_share_a_run_and_make_a_second_table(
    tmp_path, clip_directory, other, colours, capsys
):
    (tmp_path / "names.json").write_text(json.dumps(sorted(COLOURS)))
    report = run(
        tmp_path / "out", "--stages", clip_directory, other, "--full", clip_directory,
        "--datasets", f"folder:{colours}", f"folder:{colours}/.", "--images", 9, "--seed", 3,
    )  # fmt: skip
    first, second = report.tasks
    assert report.full_tower == "tiny"
    assert [task.name for task in report.tasks] == ["folder:colours", "folder:colours (2)"]
    assert (first.full.top, first.stages[0].cascade) == (second.full.top, second.stages[0].cascade)
    assert sum(first.images) == 9
    assert len(zero_shot_table.terminal(report)) == 2
    said = capsys.readouterr().out
    assert "top-1/top-5 accuracy in percent" in said
    assert "tiny (full tower)" in said
    one, two = (f"{task.full.top[1].value:.1f}/–" for task in report.tasks)
    assert f"| {one} | {two} |" in zero_shot_table.markdown(report)


def test_a_full_tower_by_itself_is_measured_too(tmp_path, clip_directory, colours):
    report = run(tmp_path / "out", "--stages", clip_directory, "--datasets", f"folder:{colours}")
    assert report.tasks[0].stages == ()
    assert "–" in zero_shot_table.markdown(report)
    flags = ("--stages", clip_directory, "--datasets", f"folder:{colours}")
    with pytest.raises(SystemExit):
        run(tmp_path / "out", *flags)
    again = run(tmp_path / "out", *flags, "--overwrite")
    assert again.tasks == report.tasks


def test_unreadable_images_are_skipped_and_named(tmp_path, clip_directory, colours, capsys):
    for file in colours.glob("*/0.png"):
        place = tmp_path / "broken" / file.parent.name
        place.mkdir(parents=True)
        (place / "fine.png").write_bytes(file.read_bytes())
        (place / "bad.png").write_bytes(file.read_bytes()[:60])
    report = run(
        tmp_path / "out", "--stages", clip_directory, "--datasets", f"folder:{tmp_path}/broken"
    )
    assert report.tasks[0].skipped == ("blue/bad.png", "green/bad.png", "red/bad.png")
    said = capsys.readouterr().out
    assert "3 unreadable images skipped" in said
    assert "skipped, because it can't be read: blue/bad.png" in said


def test_on_scenes_the_full_tower_is_far_above_chance_and_a_cascade_is_as_good(tmp_path):
    report = run(tmp_path / "out", "--images", 160, "--batch-size", 8)
    assert (report.full_tower, report.stages[1].name) == (
        Path(DEMO_MODEL).name, Path(DEMO_FIRST_STAGE).name,
    )  # fmt: skip
    names = ["object", "colour", "background"]
    assert [task.name for task in report.tasks] == [f"scenes: {name}" for name in names]
    assert [task.m for task in report.tasks] == [20, 5, 8]
    for task in report.tasks:
        (first,) = task.stages
        own = task.full.top[1]
        assert own.value > 3 * task.chance
        assert own.low <= first.cascade.value <= own.high
    what, colour, background = report.tasks
    assert colour.full.top[1].low > 3 * colour.chance
    assert background.full.top[1].low > 90
    assert what.full.top[20].low > 2 * 20 * what.chance


@pytest.mark.shared
def test_the_photographs_are_classified_by_their_own_names(shared, tmp_path):
    report = run(
        tmp_path / "out", "--stages", shared / "models" / "clip-photos", "--images", 24,
        "--batch-size", 4, "--datasets", f"folder:{shared / 'corpora' / 'photos200'}",
    )  # fmt: skip
    (task,) = report.tasks
    assert (len(task.classes), sum(task.images), task.classes[0]) == (200, 24, "goldfish")
    assert set(task.full.top) == {1, 3, 5, 10, 20}


# -- what can't work


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--datasets", "cifar11"), "no data set is called 'cifar11'"),
        (("--datasets",), "--datasets needs at least one value"),
        (("--stages",), "--stages needs at least one value"),
        (("--datasets", "folder:{colours}", "--templates", "{empty}"), "holds no template"),
        (("--datasets", "folder:{colours}", "--templates", "{names}"), "has no place for the name"),
        (("--datasets", "folder:{colours}", "--classes", "{names}"), "2 class names, but the data"),
        (("--classes", "{names}"), "scenes have names of their own"),
        (("--datasets", "folder:{colours}", "cifar10", "--classes", "{names}"), "of one data set"),
        (("--datasets", "folder:{empty_folder}"), "no labelled images"),
        (("--datasets", "folder:{colours}", "--stages", "{vision}"), "without a text tower"),
        (("--datasets", "folder:{colours}", "--stages", "{colours}"), "colours"),
        (("--datasets", "folder:{colours}", "--m", "0"), "--m must be at least 1"),
        (("--datasets", "folder:{colours}", "--device", "abacus"), "abacus"),
        (("--datasets", "scenes", "--split", "held-out"), "no split is called"),
    ],
)
def test_what_cannot_work_is_one_line_and_leaves_nothing(
    clip_directory, vision, colours, tmp_path, capsys, flags, reason
):
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "nothing").mkdir()
    places = {
        "colours": colours, "vision": vision, "names": tmp_path / "names.txt",
        "empty": tmp_path / "empty.txt", "empty_folder": tmp_path / "nothing",
    }  # fmt: skip
    given = [flag.format(**places) for flag in flags]
    stages = () if "--stages" in given else ("--stages", clip_directory)
    with pytest.raises(SystemExit) as caught:
        run(tmp_path / "out", *given, *stages)
    assert caught.value.code == 2
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert reason in said
    assert sorted(place.name for place in tmp_path.iterdir()) == [
        "empty.txt", "names.txt", "nothing",
    ]  # fmt: skip


def test_a_vision_tower_of_another_full_tower_is_refused(
    clip_directory, vision, other, colours, tmp_path, capsys
):
    record = {
        "rule": "fisher", "constraint": "MAC 0.5", "repair": "none", "base": "another",
        "base_fingerprint": "sha256 0", "corpus": "scenes train", "samples": 1, "seed": 0,
        "macs": 1, "mac_fraction": 0.5, "tower_macs": 1, "parameters": 1, "seconds": 1.0,
    }  # fmt: skip
    first = tmp_path / "first"
    first.mkdir()
    for file in vision.iterdir():
        (first / file.name).write_bytes(file.read_bytes())
    (first / "compression.json").write_text(json.dumps(record))
    with pytest.raises(SystemExit):
        run(tmp_path / "out", "--stages", first, clip_directory, "--datasets", f"folder:{colours}")
    assert "made from another checkpoint than the full tower" in capsys.readouterr().err


def test_images_that_a_stage_was_calibrated_on_are_refused(
    clip_directory, vision, colours, tmp_path, capsys
):
    first = tmp_path / "first"
    first.mkdir()
    for file in vision.iterdir():
        (first / file.name).write_bytes(file.read_bytes())
    (first / "calibration.jsonl").write_text('"red/1.png"\n')
    with pytest.raises(SystemExit):
        run(tmp_path / "out", "--stages", first, clip_directory, "--datasets", f"folder:{colours}")
    assert "in both the calibration and the evaluation data" in capsys.readouterr().err


def test_a_data_set_is_never_written_over(clip_directory, colours, capsys):
    with pytest.raises(SystemExit):
        run(colours, "--stages", clip_directory, "--datasets", f"folder:{colours}", "--overwrite")
    assert "which is read" in capsys.readouterr().err
    assert (colours / "red" / "0.png").is_file()


def test_a_report_of_something_else_is_refused(measured, tmp_path):
    whole = json.loads((measured / "report.json").read_text())
    for change, reason in (
        ({"tasks": []}, "needs a task"),
        ({"stages": whole["stages"][:2]}, "has the stages"),
        ({"schema": 99}, "schema 99"),
    ):
        (tmp_path / "r.json").write_text(json.dumps(whole | change))
        with pytest.raises(RecordError, match=reason):
            ZeroShot.load(tmp_path / "r.json")


@pytest.mark.parametrize("name", ["scenes", "photos"])
def test_the_reports_that_were_kept_still_load(name):
    report = ZeroShot.load(ROOT / "docs" / "reports" / "zero-shot" / f"{name}.json")
    assert zero_shot_table.markdown(report).count("full tower") > 1
    for task in report.tasks:
        for accuracy in task.stages:
            assert task.full.top[1].low <= accuracy.cascade.value <= task.full.top[1].high
