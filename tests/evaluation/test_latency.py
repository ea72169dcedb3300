"""The latency table, run whole on tiny CLIPs; nothing is asserted of how long anything takes."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import CLIPModel, CLIPVisionModelWithProjection

from cascade import Stage
from compress.command import run_command
from corpora import load_corpus
from evaluation.latency import LatencyOptions, main
from evaluation.reports.latency import table as latency_table
from evaluation.reports.latency.report import Latency
from evaluation.reports.record import RecordError
from evaluation.reports.table import with_interval
from evaluation.reports.zero_shot.report import ZeroShot
from evaluation.retrieval import ranks_from_embeddings, recall_of
from evaluation.zero_shot import ZeroShotOptions
from evaluation.zero_shot import main as zero_shot
from pruning_mechanism import macs
from pruning_mechanism.checkpoints.checkpoint import fingerprint
from tests.conftest import tiny_clip, tiny_processor
from tests.pruning_mechanism.conftest import tiny_model


def run(output: Path, *flags) -> Latency:
    arguments = [str(each) for each in ("--output", output, "--repetitions", 2, *flags)]
    run_command(main, LatencyOptions, "evaluation.latency", arguments)
    return Latency.load(output / "report.json")


@pytest.fixture(scope="module")
def corpus(folder):
    return "--corpus", "folder", "--corpus-dir", folder


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Another CLIP, with a text tower of its own."""
    directory = tmp_path_factory.mktemp("other") / "other"
    tiny_clip(seed=1, num_hidden_layers=2).save_pretrained(directory)
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
def colours(tmp_path_factory, folder):
    """The corpus's validation images, in class directories."""
    root = tmp_path_factory.mktemp("colours") / "colours"
    for number, file in enumerate(sorted((folder / "validation").glob("*.png"))):
        place = root / ("red", "green", "blue")[number % 3]
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place / file.name)
    return root


@pytest.fixture(scope="module")
def measured(tmp_path_factory, clip_directory, other, vision, corpus):
    output = tmp_path_factory.mktemp("latency") / "out"
    run(output, "--models", clip_directory, other, vision, "--full", clip_directory,
        "--batch", 2, 16, *corpus)  # fmt: skip
    return output


@pytest.fixture
def report(measured) -> Latency:
    return Latency.load(measured / "report.json")


def count(*modules) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def test_parameters_are_a_plain_count_of_transformers(report, clip_directory, other):
    for model, directory in zip(report.models, (clip_directory, other), strict=False):
        plain = CLIPModel.from_pretrained(directory)
        assert model.image.parameters == count(plain.vision_model, plain.visual_projection)
        assert model.text.parameters == count(plain.text_model, plain.text_projection)
        assert model.tower_macs == macs(plain).tower
        both = model.image.parameters + model.text.parameters
        assert both == count(plain) - plain.logit_scale.numel()
    tiny, other_row, alone = report.models
    assert (alone.image.parameters, alone.tower_macs) == (tiny.image.parameters, tiny.tower_macs)
    assert other_row.image.parameters < tiny.image.parameters


def test_a_vision_tower_alone_has_no_text_side_and_says_whose_it_borrows(report):
    tiny, other, alone = report.models
    assert [model.name for model in report.models] == ["tiny", "other", "vision"]
    assert (alone.text, alone.borrows, alone.scores) == (None, "tiny", tiny.scores)
    assert (tiny.borrows, other.borrows) == (None, None)


def test_every_side_is_timed_at_every_batch_size(report):
    assert report.batches == (2, 16)
    for model in report.models:
        for side in filter(None, (model.image, model.text)):
            assert [timed.batch for timed in side.timed] == [2, 16]
            for timed in side.timed:
                for timing in (timed.encoder, timed.end_to_end):
                    assert timing.repetitions == 2
                    assert 0 < timing.lower_quartile <= timing.median <= timing.upper_quartile


def test_the_score_is_recall_at_1_of_a_search_by_hand(report, clip_directory, other, folder):
    images = load_corpus("folder", folder, "validation")
    texts = [(text, place) for place, each in enumerate(images["captions"]) for text in each]
    (scored,) = report.scored
    assert (scored.label, scored.images, scored.texts) == ("Recall@1, folder", 14, 28)
    for model, directory in zip(report.models, (clip_directory, other), strict=False):
        stage = Stage.load(directory)
        queries = stage.encode_texts([text for text, _ in texts])
        ranks = ranks_from_embeddings(
            queries, stage.encode_images(images["image"][:]), torch.tensor([at for _, at in texts])
        )
        (score,) = model.scores
        assert score.value == pytest.approx(recall_of(ranks, (1,))[1])
        assert score.low <= score.value <= score.high


def test_the_zero_shot_score_is_the_other_commands_top_1(tmp_path, clip_directory, vision, colours):
    flags = ("--datasets", f"folder:{colours}", "--images", 9, "--seed", 3)
    report = run(
        tmp_path / "out", "--models", clip_directory, vision, "--score", "zero-shot",
        "--batch", 1, *flags,
    )  # fmt: skip
    arguments = ("--stages", vision, clip_directory, "--output", tmp_path / "zero", *flags)
    line = list(map(str, arguments))
    run_command(zero_shot, ZeroShotOptions, "evaluation.zero_shot", line)
    (task,) = ZeroShot.load(tmp_path / "zero" / "report.json").tasks
    assert [model.scores for model in report.models] == [
        (task.full.top[1],), (task.stages[0].top[1],),
    ]  # fmt: skip
    assert report.scored[0].label == "top-1, folder:colours"
    assert (report.scored[0].images, report.scored[0].texts) == (9, 3)
    assert report.models[1].borrows == "tiny"  # the only one that there is


@pytest.mark.parametrize("family", ["siglip", "altclip"])
def test_other_families_have_both_sides_too(tmp_path, family, corpus):
    """SigLIP projects by heads; an AltCLIP's text tower is a BERT, which can't be pruned."""
    model = tiny_model(family)
    processor = tiny_processor()
    processor.tokenizer.model_max_length = 12  # a RoBERTa has fewer places than embeddings
    for saved in (model, processor):
        saved.save_pretrained(tmp_path / family)
    report = run(tmp_path / "out", "--models", tmp_path / family, "--batch", 1, *corpus)
    (row,) = report.models
    scales = [getattr(model, name, None) for name in ("logit_scale", "logit_bias")]
    neither = sum(scale.numel() for scale in scales if scale is not None)
    assert row.image.parameters + row.text.parameters == count(model) - neither
    assert row.image.parameters >= count(model.vision_model)
    assert row.text.parameters >= count(model.text_model)


def test_models_are_timed_alone_without_any_text_tower(tmp_path, vision, corpus):
    report = run(tmp_path / "out", "--models", vision, "--score", "none", "--batch", 3, *corpus)
    (model,) = report.models
    assert (report.scored, model.scores, model.text, model.borrows) == ((), (), None, None)
    assert latency_table.markdown(report).count("| vision |") == 1


def test_the_table_shows_parameters_milliseconds_and_scores(measured, report, capsys):
    text = (measured / "report.md").read_text()
    assert text == latency_table.markdown(report)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    header, _, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines)
    assert header == [
        "model", "parameters image + text", "MACs of an image", "batch", "ms/image encoder",
        "ms/image from bytes", "ms/text encoder", "Recall@1 folder",
    ]  # fmt: skip
    assert [row[3] for row in rows] == ["2", "16"] * 3
    assert [row[0] for row in rows] == ["tiny", "", "other", "", "vision", ""]
    assert [row[6] == "–" for row in rows] == [False] * 4 + [True] * 2
    assert rows[4][1].endswith("+ –")
    assert rows[0][7] == with_interval(report.models[0].scores[0]).replace("\n", " ")
    assert "vision is a vision tower alone, scored with the text tower of tiny" in text
    assert report.machine.summary in text
    assert "/" not in report.command.replace("python -m", "")  # no path of this machine


def test_a_tower_finds_among_the_models_the_one_that_it_was_made_from(
    tmp_path, clip_directory, other, vision, corpus
):
    first = made_from(vision, tmp_path / "first", fingerprint_of(other))
    flags = ("--batch", 1, *corpus)
    report = run(tmp_path / "out", "--models", clip_directory, other, first, *flags)
    assert report.models[2].borrows == "other"


def fingerprint_of(directory: Path) -> str:
    return fingerprint(directory, CLIPModel.from_pretrained(directory))


def made_from(vision: Path, directory: Path, base: str) -> Path:
    """A copy of a vision tower whose record says what it was made from."""
    record = {
        "rule": "fisher", "constraint": "MAC 0.5", "repair": "none", "base": "another",
        "base_fingerprint": base, "corpus": "scenes train", "samples": 1, "seed": 0,
        "macs": 1, "mac_fraction": 0.5, "tower_macs": 1, "parameters": 1, "seconds": 1.0,
    }  # fmt: skip
    shutil.copytree(vision, directory)
    (directory / "compression.json").write_text(json.dumps(record))
    return directory


# -- what can't work


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--models", "{tiny}", "{tiny}/."), "is named twice"),
        (("--models",), "--models needs at least one value"),
        (("--models", "{vision}"), "no text tower is there"),
        (("--models", "{vision}", "--full", "{vision}"), "is a vision tower alone: name a whole"),
        (("--models", "{tiny}", "{other}", "{vision}"), "nothing says which of"),
        (("--models", "{tiny}", "{first}"), "was made from another checkpoint"),
        (("--models", "{wide}", "{vision}"), "they don't belong together"),
        (("--models", "{tiny}", "{empty}"), "empty"),
        (("--batch", "0"), "--batch must be at least 1"),
        (("--batch", "2", "2"), "name each batch size once"),
        (("--batch",), "--batch needs at least one value"),
        (("--corpus-dir", "{empty}"), "no metadata.jsonl"),
        (("--corpus-dir", "{broken}"), "no image is left that can be read"),
        (("--device", "abacus"), "abacus"),
        (("--split", "held-out"), "no split is called"),
    ],
)
def test_what_cannot_work_is_one_line_and_leaves_nothing(
    clip_directory, other, vision, folder, tmp_path, capsys, flags, reason
):
    place = tmp_path / "given"
    (place / "empty" / "validation").mkdir(parents=True)
    (place / "broken" / "validation").mkdir(parents=True)
    line = json.dumps({"file_name": "a.png", "captions": ["a red square"]})
    (place / "broken" / "validation" / "metadata.jsonl").write_text(line)
    (place / "broken" / "validation" / "a.png").write_bytes(b"no picture")
    first = made_from(vision, place / "first", "sha256 0")
    if "{wide}" in flags:
        wide(place / "wide")
    places = {
        "tiny": clip_directory, "other": other, "vision": vision, "first": first,
        "empty": place / "empty", "broken": place / "broken", "wide": place / "wide",
    }  # fmt: skip
    given = [flag.format(**places) for flag in flags]
    models = () if "--models" in given else ("--models", clip_directory)
    corpus = ("--corpus", "folder") + (() if "--corpus-dir" in given else ("--corpus-dir", folder))
    with pytest.raises(SystemExit) as caught:
        run(tmp_path / "out", *given, *models, *corpus)
    assert caught.value.code == 2
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert reason in said
    assert [each.name for each in tmp_path.iterdir()] == ["given"]


def wide(directory: Path) -> None:
    """A CLIP whose embeddings are longer."""
    config = tiny_clip().config
    config.projection_dim = config.vision_config.projection_dim = 12
    config.text_config.projection_dim = 12
    CLIPModel(config).save_pretrained(directory)
    tiny_processor().save_pretrained(directory)


def test_images_that_a_model_was_calibrated_on_are_refused(
    clip_directory, vision, folder, corpus, tmp_path, capsys
):
    first = tmp_path / "first"
    shutil.copytree(vision, first)
    key = load_corpus("folder", folder, "validation")["key"][0]
    (first / "calibration.jsonl").write_text(json.dumps(key) + "\n")
    with pytest.raises(SystemExit):
        run(tmp_path / "out", "--models", clip_directory, first, *corpus)
    assert "in both the calibration and the evaluation data" in capsys.readouterr().err


def test_an_earlier_result_is_replaced_only_when_told(measured, clip_directory, corpus, capsys):
    before = (measured / "report.json").read_bytes()
    with pytest.raises(SystemExit):
        run(measured, "--models", clip_directory, *corpus)
    assert "--overwrite" in capsys.readouterr().err
    assert (measured / "report.json").read_bytes() == before


def test_the_report_comes_back_as_it_was_and_others_are_refused(measured, report, tmp_path):
    report.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (measured / "report.json").read_bytes()
    whole = json.loads((measured / "report.json").read_text())
    for change, reason in (
        ({"models": []}, "needs a model"),
        ({"batches": [1]}, "timed at the batch sizes"),
        ({"scored": []}, "1 scores, the report 0"),
        ({"schema": 99}, "schema 99"),
        ({"tasks": []}, "tasks"),
    ):
        (tmp_path / "r.json").write_text(json.dumps(whole | change))
        with pytest.raises(RecordError, match=reason):
            Latency.load(tmp_path / "r.json")
