"""The experiment, run whole on a tiny CLIP and a folder of images."""

import json
import shutil

import pytest
import torch
from transformers import CLIPVisionModelWithProjection

from cascade import ResumedStage, Stage
from compress.command import run_command
from corpora import load_corpus
from evaluation.cascade import CascadeOptions, main
from evaluation.experiment.quality import Queries
from evaluation.reports import table
from evaluation.reports.report import Report
from evaluation.retrieval import agreement
from pruning_mechanism import Mask, Reduction, load, macs, reduce, save
from pruning_mechanism.checkpoints.preparation import resized_processor
from tests.conftest import tiny_clip, tiny_processor
from tests.lanes import sweep


def run(model, folder, output, *flags):
    given = ["--model", model, "--corpus", "folder", "--corpus-dir", folder, "--output", output]
    given += ["--samples", 12, "--repair-samples", 8, "--batch-size", 4, "--m", 10]
    given += ["--repetitions", 2, "--heads", 3]
    if "--latency-constraint" not in flags:
        given += ["--mac-constraint", 0.5, 0.8]
    if "--stage" not in flags:
        given += ["--methods", "fisher", "sensitivity"]
    given += flags
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
    assert (experiment / "report.md").read_text() == table.markdown(report)


def test_first_stages_are_kept_and_cost_what_the_report_says(experiment):
    for row in Report.load(experiment / "report.json").rows:
        directory = experiment / "stages" / row.directory
        mask = Mask.load(directory / "mask.safetensors")
        assert row.encoder_macs == macs(load(directory)).encoder
        assert row.mac_fraction == mask.mac_fraction(tiny_clip().config)


def test_speedups_follow_from_the_reports_own_seconds(experiment):
    report = Report.load(experiment / "report.json")
    assert report.seconds_basis == "end to end"
    tower = report.reference
    for row in report.rows:
        for speedup, first, last in (
            (row.lifetime_speedup, row.end_to_end_seconds, tower.end_to_end_seconds),
            (row.encoder_speedup, row.encoder_seconds, tower.encoder_seconds),
        ):
            known = last.median / (first.median + 0.1 * last.median)
            assert speedup.value == pytest.approx(known)
            assert speedup.low <= speedup.value <= speedup.high
        assert 10 / 14 <= row.f_measured <= 1


def test_a_cascade_that_hands_everything_on_is_the_full_towers_search(
    clip_directory, folder, tmp_path
):
    run(clip_directory, folder, tmp_path / "out", "--m", 14, "--methods", "sensitivity")
    (row,) = Report.load(tmp_path / "out" / "report.json").rows
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
    flags = ("--text-model", clip_directory, "--methods", "fisher")
    run(tmp_path / "vision", folder, tmp_path / "out", *flags)
    whole = Report.load(experiment / "report.json")
    alone = Report.load(tmp_path / "out" / "report.json")
    assert [row.alone for row in alone.rows] == [row.alone for row in whole.rows[:2]]
    assert alone.reference.alone == whole.reference.alone


@pytest.fixture(scope="module")
def first_captions(clip_directory, folder, tmp_path_factory):
    """More calibration images are asked for than there are."""
    output = tmp_path_factory.mktemp("captions") / "out"
    flags = ("--samples", 99, "--repair-samples", 50, "--methods", "sensitivity")
    run(clip_directory, folder, output, *flags, "--captions", "first")
    return Report.load(output / "report.json")


def test_the_report_says_how_many_images_were_really_calibrated_on(first_captions):
    found = first_captions.calibration
    assert found == "16 images of folder (train), 16 of them for the repair (reconstruct)"


def test_one_caption_an_image_is_a_protocol(first_captions):
    found = (first_captions.queries, first_captions.captions, len(first_captions.rows))
    assert found == (14, "first", 1)


def test_an_unreadable_image_is_not_searched_and_named(clip_directory, folder, tmp_path, capsys):
    shutil.copytree(folder, tmp_path / "corpus")
    (tmp_path / "corpus" / "validation" / "validation-002.png").write_bytes(b"\x89PNG")
    run(clip_directory, tmp_path / "corpus", tmp_path / "out", "--methods", "sensitivity")
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
        (("--heads", 40), "40 heads can't go: the vision tower has 12"),
        (("--stage", "nowhere"), "--stage nowhere: no such directory"),
        (("--images", 0), "--images must be at least 1"),
        (("--methods", "flip", "--samples", 2), "2 readable calibration images are too few"),
        (("--methods", "flip+none"), "'none' is none of unaligned, grid"),
        (
            ("--methods", "recover", "--latency-constraint", 0.0001),
            "latency 0.0001: even a tower without heads",
        ),
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


BUDGETS = sweep((0.5, 0.8), (0.5,))
REDUCING = ("flip+random", "merge+constant", "rank+learned", "resolution", "early_exit")


@pytest.fixture(scope="module")
def reduced(clip_directory, folder, tmp_path_factory):
    """Every rule that leaves out tokens or layers, and an aligned pruned tower."""
    output = tmp_path_factory.mktemp("reduced") / "out"
    names = (*REDUCING, "early_exit+unaligned", "recover+none+aligned", "recover+none")
    run(clip_directory, folder, output, "--methods", *names, "--mac-constraint", *BUDGETS)
    return output


def test_rules_that_leave_out_tokens_or_layers_are_methods_too(reduced):
    report = Report.load(reduced / "report.json")
    rows = [row for row in report.rows if row.method in REDUCING]
    assert [(row.method, row.constraint) for row in rows] == [
        (name, f"MAC {budget}") for name in REDUCING for budget in BUDGETS
    ]
    for row in rows:
        model, record = load(reduced / "stages" / row.directory), recorded(reduced, row)
        assert row.mac_fraction == macs(model).fraction <= row.constraint_value
        assert (record["rule"], record["align"]) == (row.method, "ridge")
        assert record["samples"] == 12
        assert row.compression_seconds == record["seconds"]
    assert report.calibration.endswith(
        "8 of them for the repair (reconstruct), all of them for the alignment"
    )


def test_the_joint_rule_is_a_method_too(clip_directory, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("compress.searching.combinations.MERGED", {"constant": (0.25,)})
    run(clip_directory, folder, tmp_path / "out", "--methods", "joint", "--mac-constraint", 0.5)
    (row,) = Report.load(tmp_path / "out" / "report.json").rows
    assert (row.method, row.constraint) == ("joint", "MAC 0.5")
    assert row.mac_fraction <= 0.5
    assert recorded(tmp_path / "out", row)["align"] == "ridge"


def test_unaligned_leaves_the_projection_as_it_was(reduced, clip_directory):
    own = load(clip_directory).visual_projection.weight
    for name, same in (("early_exit+unaligned", True), ("early_exit", False)):
        found = load(reduced / "stages" / f"{name}-mac-0.5").visual_projection
        assert (getattr(found, "weight", None) is not None) == same
        assert not same or torch.equal(found.weight, own)


def test_an_aligned_pruned_tower_is_that_tower_with_another_projection(reduced):
    report = Report.load(reduced / "report.json")
    plain, aligned = (
        [row for row in report.rows if row.method == name]
        for name in ("recover+none", "recover+none+aligned")
    )
    for before, after in zip(plain, aligned, strict=True):
        place = reduced / "stages" / after.directory
        earlier = reduced / "stages" / before.directory
        assert Mask.load(place / "mask.safetensors") == Mask.load(earlier / "mask.safetensors")
        weights = [load(each).vision_model.state_dict() for each in (place, earlier)]
        assert all(torch.equal(*pair) for pair in zip(*(w.values() for w in weights), strict=True))
        assert load(place).config.vision_config.aligned_features is not None
        record = recorded(reduced, after)
        assert record["chain"] == [f"recover+none {after.constraint}", "align ridge"]
        names = (record["rule"], record["repair"], record["align"])
        assert names == ("recover+none+aligned", "none", "ridge")
        assert after.compression_seconds == record["seconds"]


def recorded(experiment, row) -> dict:
    return json.loads((experiment / "stages" / row.directory / "compression.json").read_text())


def test_a_constraint_out_of_a_rules_reach_is_said_and_left_out(
    clip_directory, folder, tmp_path, capsys
):
    flags = ("--methods", "rank", "early_exit", "--mac-constraint", 0.335, 0.5)
    run(clip_directory, folder, tmp_path / "out", *flags)
    rows = Report.load(tmp_path / "out" / "report.json").rows
    assert [(row.method, row.constraint) for row in rows] == [
        ("rank", "MAC 0.5"),
        ("early_exit", "MAC 0.335"),
        ("early_exit", "MAC 0.5"),
    ]
    said = capsys.readouterr().out
    assert "skipped: rank, MAC 0.335: MAC 0.335: the least that this rule" in said


def test_a_constraint_that_turns_out_to_be_out_of_reach_is_left_out(
    clip_directory, folder, tmp_path
):
    """No latency table is known before the work: some rule finds out as it goes."""
    flags = ("--methods", "recover", "--latency-constraint", 0.9, 0.0001)
    run(clip_directory, folder, tmp_path / "out", *flags, "--repair", "none")
    rows = Report.load(tmp_path / "out" / "report.json").rows
    assert [row.constraint for row in rows] == ["latency 0.9"]


def test_a_method_that_can_meet_no_constraint_is_refused(clip_directory, folder, tmp_path, capsys):
    flags = ("--methods", "fisher", "early_exit", "--mac-constraint", 0.3)
    message = refused(capsys, clip_directory, folder, tmp_path / "out", *flags)
    assert "--methods early_exit: MAC 0.3: the least" in message
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def resumed(clip_directory, folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("resumed") / "out"
    run(clip_directory, folder, output, "--methods", "early_exit", "flip", "--resume")
    return Report.load(output / "report.json")


def test_an_early_exit_has_a_second_row_in_which_the_full_tower_resumes(resumed):
    assert [(row.method, row.constraint) for row in resumed.rows] == [
        ("early_exit", "MAC 0.5"),
        ("early_exit resumed", "MAC 0.5"),
        ("early_exit", "MAC 0.8"),
        ("early_exit resumed", "MAC 0.8"),
        ("flip", "MAC 0.5"),
        ("flip", "MAC 0.8"),
    ]
    for before, after in zip(resumed.rows[0:4:2], resumed.rows[1:4:2], strict=True):
        assert after.alone == before.alone
        assert after.encoder_macs == before.encoder_macs
        assert (before.state_bytes, before.resumed_seconds) == (None, None)
        assert after.state_bytes == (16 + 1) * 16 * 2  # tokens, hidden size, half precision
        for k, recall in after.cascade.recall.items():  # the same but for half precision
            assert recall.value == pytest.approx(before.cascade.recall[k].value, abs=100 / 28)
        assert after.cascade.agreement.value == pytest.approx(before.cascade.agreement.value, abs=2)


def test_a_resumed_towers_speedups_follow_from_its_own_seconds(resumed):
    whole = resumed.reference.end_to_end_seconds.median
    for row in resumed.rows[1:4:2]:
        first, then = row.end_to_end_seconds.median, row.resumed_seconds.median
        assert row.lifetime_speedup.value == pytest.approx(whole / (first + 0.1 * then))
        assert row.query_speedup == pytest.approx(whole / then)
        most = resumed.reference.encoder_seconds.median / row.encoder_seconds.median
        assert 0 < row.encoder_speedup.value < most, "going on from the states takes time too"
        assert row.lifetime_speedup.low <= row.lifetime_speedup.value <= row.lifetime_speedup.high


def test_recall_of_a_resumed_tower_is_that_of_the_embeddings_it_gives(
    clip_directory, folder, tmp_path
):
    """A full tower that goes on from fewer tokens is another one, and all the images come up."""
    ended = reduce(load(clip_directory), Reduction(layers=2, kept_patches=2, patch_rule="saliency"))
    save(ended, tmp_path / "ended", tiny_processor())
    run(
        clip_directory, folder, tmp_path / "out", "--stage", tmp_path / "ended", "--resume",
        "--m", 14,
    )  # fmt: skip
    ordinary, resumed = Report.load(tmp_path / "out" / "report.json").rows
    assert ordinary.cascade.agreement.value == 100
    full = Stage.load(clip_directory)
    stage = ResumedStage(full, Stage.load(tmp_path / "ended"))
    corpus = load_corpus("folder", folder, "validation")
    queries = Queries.of(corpus)
    texts = full.encode_texts(queries.texts)
    expected, own = (
        (texts @ each.encode_images(corpus["image"][:]).T).topk(10).indices
        for each in (full, stage)
    )
    assert resumed.cascade.agreement.value == pytest.approx(agreement(expected, own))
    assert resumed.cascade.agreement.value < 100
    assert resumed.method == "ended resumed"


def test_an_exit_that_the_full_tower_cannot_resume_from_has_one_row(
    clip_directory, folder, tmp_path, capsys
):
    ended = reduce(load(clip_directory), Reduction(layers=2, image_size=8))
    save(ended, tmp_path / "ended", resized_processor(tiny_processor(), 8))
    run(clip_directory, folder, tmp_path / "out", "--stage", tmp_path / "ended", "--resume")
    (row,) = Report.load(tmp_path / "out" / "report.json").rows
    assert row.resumed_seconds is None
    said = capsys.readouterr().out
    assert "note: ended is not resumed: the first stage has image_size 8" in said
    assert "no first stage to resume from" in said


def test_towers_attend_as_asked_and_the_report_says_how(clip_directory, folder, tmp_path):
    given = ("--methods", "early_exit", "--mac-constraint", 0.5, "--attention")
    for asked, named in (("eager", {"eager"}), ("fastest", {"eager", "sdpa"})):
        run(clip_directory, folder, tmp_path / asked, *given, asked)
        report = Report.load(tmp_path / asked / "report.json")
        assert {row.attention for row in (report.reference, *report.rows)} <= named
