"""The masking experiment, run whole on a tiny CLIP of 16 patches and a folder of images."""

from itertools import product

import pytest
import torch
from transformers import CLIPVisionModelWithProjection

from commands.writing.belongings import files_in
from compress import flip, merge
from compress.command import run_command
from evaluation import cascade
from evaluation.masking import MaskingExperimentOptions, _sharing, main
from evaluation.reports import table
from evaluation.reports.report import Report
from pruning_mechanism import Reduction, load, macs, reduce
from tests.conftest import tiny_clip, tiny_processor
from tests.lanes import sweep


def run(model, folder, output, *flags) -> Report:
    given = ["--model", model, "--corpus", "folder", "--corpus-dir", folder, "--output", output]
    given += ["--samples", 16, "--batch-size", 4, "--m", 10, "--repetitions", 2, "--mask", 0, 0.5]
    arguments = [str(each) for each in (*given, *flags)]
    run_command(main, MaskingExperimentOptions, "evaluation.masking", arguments)
    return Report.load(output / "report.json")


def made(command, options, name, model, folder, output, *flags):
    """What a rule's own command writes."""
    given = ["--model", model, "--corpus", "folder", "--corpus-dir", folder, "--output", output]
    arguments = [str(each) for each in (*given, "--samples", 16, "--batch-size", 4, *flags)]
    run_command(command, options, name, arguments)
    return output


@pytest.fixture(scope="module")
def experiment(clip_directory, folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("masking") / "out"
    run(clip_directory, folder, output)
    return output


@pytest.fixture
def half(tmp_path):
    """A checkpoint whose weights are stored in half precision."""
    directory = tmp_path / "half"
    tiny_clip().half().save_pretrained(directory)
    tiny_processor().save_pretrained(directory)
    return directory


def test_the_report_has_a_row_for_each_rule_and_share(experiment):
    report = Report.load(experiment / "report.json")
    assert [(row.method, row.constraint, row.constraint_value) for row in report.rows] == [
        (keep, f"mask {share:g}", share)
        for keep in ("grid", "random", "saliency")
        for share in (0.0, 0.5)
    ]
    assert (report.images, report.queries, report.m) == (14, 28, (10,))
    assert report.calibration == "16 images of folder (train), for the alignment (ridge)"


def test_nothing_but_the_report_is_kept(experiment):
    assert files_in(experiment) == ["report.json", "report.md"]
    report = Report.load(experiment / "report.json")
    assert all(row.directory is None for row in report.rows)
    assert (experiment / "report.md").read_text() == table.markdown(report)


def test_rows_cost_what_the_share_leaves_and_speedups_follow_from_the_reports_seconds(experiment):
    report = Report.load(experiment / "report.json")
    dense = tiny_clip()
    halved = macs(reduce(dense, Reduction(kept_patches=8))).encoder
    last = report.reference.end_to_end_seconds.median
    for row in report.rows:
        assert row.encoder_macs == (halved if row.constraint_value else macs(dense).encoder)
        first = row.end_to_end_seconds.median
        assert row.lifetime_speedup.value == pytest.approx(last / (first + 0.1 * last))
        assert row.lifetime_speedup.low <= row.lifetime_speedup.value <= row.lifetime_speedup.high


@pytest.mark.parametrize(
    ("align", "precision"),
    sweep(product(["ridge", "none"], ["single", "half"]), [("ridge", "half"), ("none", "single")]),
)
def test_a_first_stage_in_memory_measures_as_the_checkpoint_that_flip_writes(
    clip_directory, half, folder, tmp_path, align, precision
):
    model = half if precision == "half" else clip_directory
    own = ("--keep", "saliency", "--mask", 0.75, "--align", align)
    stage = made(
        flip.main, flip.FlipOptions, "compress.flip", model, folder, tmp_path / "stage", *own
    )
    (row,) = run(model, folder, tmp_path / "out", *own).rows
    flags = ("--stage", stage, "--m", 10, "--repetitions", 1)
    made(
        cascade.main, cascade.CascadeOptions, "evaluation.cascade", model, folder,
        tmp_path / "before", *flags,
    )  # fmt: skip
    (before,) = Report.load(tmp_path / "before" / "report.json").rows
    assert (row.alone, row.cascade) == (before.alone, before.cascade)
    assert row.one_minus_cosine == before.one_minus_cosine
    assert (row.tower_macs, row.parameters) == (before.tower_macs, before.parameters)


def test_without_alignment_no_mask_is_the_full_tower(clip_directory, folder, tmp_path):
    report = run(clip_directory, folder, tmp_path / "out", "--align", "none", "--mask", 0)
    for row in report.rows:
        assert row.alone.agreement.value == 100
        assert row.one_minus_cosine == pytest.approx(0, abs=1e-6)
        assert row.tower_macs == report.reference.tower_macs
    assert report.calibration == "nothing: first stages are not aligned"


def test_first_stages_hold_the_sources_own_weights_where_masking_left_them_alone():
    source = tiny_clip()
    changed = reduce(source, Reduction(kept_patches=4))
    with torch.no_grad():
        changed.visual_projection.weight.add_(1)
    shared = dict(_sharing(changed, source).named_parameters())
    for name, parameter in source.named_parameters():
        alike = shared[name].data_ptr() == parameter.data_ptr()
        assert alike == (name != "visual_projection.weight"), name


def test_a_first_stage_made_before_is_masked_in_front_of_what_it_was_made_from(
    clip_directory, folder, tmp_path
):
    merged = made(
        merge.main, merge.MergeOptions, "compress.merge", clip_directory, folder,
        tmp_path / "merged", "--r", 2,
    )  # fmt: skip
    report = run(merged, folder, tmp_path / "out", "--keep", "grid")
    assert report.model == clip_directory.name
    assert report.reference.mac_fraction == 1
    assert all(row.mac_fraction < 0.9 for row in report.rows)
    assert report.calibration.endswith("; all made of merge r 2")


def test_a_vision_tower_alone_is_searched_with_another_models_texts(
    clip_directory, folder, experiment, tmp_path
):
    config = tiny_clip().config.vision_config
    vision = CLIPVisionModelWithProjection.from_pretrained(clip_directory, config=config)
    vision.save_pretrained(tmp_path / "vision")
    tiny_processor().image_processor.save_pretrained(tmp_path / "vision")
    flags = ("--text-model", clip_directory)
    alone = run(tmp_path / "vision", folder, tmp_path / "out", *flags)
    whole = Report.load(experiment / "report.json")
    assert [row.alone for row in alone.rows] == [row.alone for row in whole.rows]


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--split", "train"), "in both the calibration and the evaluation data"),
        (("--mask", 0.5, 1), "--mask must be in [0, 1), found 1"),
        (("--mask",), "--mask needs at least one value"),
        (("--keep",), "--keep needs at least one value"),
        (("--m", 5), "--m must be at least 10"),
        (("--images", 0), "--images must be at least 1"),
    ],
)
def test_what_cannot_work_is_refused(clip_directory, folder, tmp_path, capsys, flags, reason):
    with pytest.raises(SystemExit) as caught:
        run(clip_directory, folder, tmp_path / "out", *flags)
    assert caught.value.code == 2
    assert reason in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_tower_that_cannot_be_masked_is_refused_in_one_line(folder, tmp_path, capsys):
    sizes = {"resolutions": (8, 16), "resolution_bounds": (0.1,), "resolution_shares": (0.5, 0.5)}
    reduce(tiny_clip(), Reduction(**sizes)).save_pretrained(tmp_path / "model")
    tiny_processor().save_pretrained(tmp_path / "model")
    assert load(tmp_path / "model").config.vision_config.resolutions
    with pytest.raises(SystemExit) as caught:
        run(tmp_path / "model", folder, tmp_path / "out")
    assert caught.value.code == 2
    assert "images of one size only" in capsys.readouterr().err.strip().split("\n")[-1]
