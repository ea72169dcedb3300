"""The commands, run whole on a tiny CLIP and a folder of images."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPVisionModelWithProjection

from compress import fisher, recover, sensitivity
from compress.choices import Checkpoints, Deployment, Sampling
from compress.command import run_command
from compress.making.keys import read_keys
from compress.making.source import Needs, open_source
from corpora import load_corpus
from figures.result import load_curves
from pruning_mechanism import Mask, load
from pruning_mechanism.checkpoints import checkpoint
from tests.conftest import tiny_clip, tiny_processor
from tests.fresh import Process
from tests.lanes import sweep

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = {
    "fisher": (fisher.main, fisher.FisherOptions),
    "recover": (recover.main, recover.RecoverOptions),
    "sensitivity": (sensitivity.main, sensitivity.SensitivityOptions),
}


def run(rule: str, model: Path, folder: Path, output: Path, *flags) -> None:
    main, options = COMMANDS[rule]
    given = ["--model", model, "--corpus", "folder", "--corpus-dir", folder, "--output", output]
    given += ["--samples", 12, "--batch-size", 4, "--repair-samples", 8, *flags]
    run_command(main, options, f"compress.{rule}", [str(each) for each in given])


def refused(capsys, *arguments) -> str:
    """The one line with which a command is refused with status 2."""
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    message = capsys.readouterr().err.strip().split("\n")[-1]
    assert caught.value.code == 2
    assert message.startswith("error: ")
    return message


def test_fisher_writes_a_smaller_tower_with_its_mask_and_record(clip_directory, folder, tmp_path):
    run("fisher", clip_directory, folder, tmp_path / "out", "--mac-constraint", 0.5)
    mask = Mask.load(tmp_path / "out" / "mask.safetensors")
    model = load(tmp_path / "out")
    record = json.loads((tmp_path / "out" / "compression.json").read_text())
    assert 0.4 < mask.mac_fraction(tiny_clip().config) <= 0.5
    assert model.config.vision_config.heads_per_layer == mask.heads.sum(1).tolist()
    assert (record["rule"], record["constraint"]) == ("fisher", "MAC 0.5")
    assert record["base_fingerprint"].startswith("sha256 ")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_same_seed_writes_the_same_bytes(clip_directory, folder, tmp_path):
    for name in "ab":
        run("fisher", clip_directory, folder, tmp_path / name, "--seed", 3)
    for file in ("mask.safetensors", "model.safetensors", "calibration.jsonl"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    run("fisher", clip_directory, folder, tmp_path / "c", "--seed", 4)
    calibrations = [read_keys(tmp_path / name) for name in "ac"]
    assert calibrations[0] != calibrations[1]


def test_sensitivity_takes_heads_away_and_no_neuron(clip_directory, folder, tmp_path):
    run("sensitivity", clip_directory, folder, tmp_path / "out", "--heads", 5)
    mask = Mask.load(tmp_path / "out" / "mask.safetensors")
    assert (int((~mask.heads).sum()), int((~mask.neurons).sum())) == (5, 0)


@pytest.mark.parametrize("allocate", ["curves", "scores", "uniform"])
def test_recover_keeps_the_budget_and_repairs(clip_directory, folder, tmp_path, allocate):
    flags = ("--mac-constraint", 0.5, "--allocate", allocate)
    run("recover", clip_directory, folder, tmp_path / "out", *flags)
    record = json.loads((tmp_path / "out" / "compression.json").read_text())
    assert 0.35 < record["mac_fraction"] <= 0.5
    assert record["repair"] == "reconstruct"
    repairs = json.loads((tmp_path / "out" / "repair.json").read_text())
    assert [each["kind"] for each in repairs] == ["heads", "neurons"] * 3 + ["projection"]
    assert repairs[-2]["error_after"] < repairs[-2]["error_before"]


def test_all_but_one_leaves_single_heads(clip_directory, folder, tmp_path):
    flags = ("--heads", 6, "--rule", "all-but-one")
    run("sensitivity", clip_directory, folder, tmp_path / "out", *flags)
    heads = Mask.load(tmp_path / "out" / "mask.safetensors").heads
    assert sorted(heads.sum(1).tolist()) == [1, 1, 4]
    record = json.loads((tmp_path / "out" / "compression.json").read_text())
    assert record["settings"]["rule"] == "all-but-one"


@pytest.fixture
def half_everywhere(monkeypatch):
    """Half precision is computed as it is, as on a GPU."""
    monkeypatch.setattr(checkpoint, "HALF", ())


@pytest.fixture
def half_directory(tmp_path):
    tiny_clip().half().save_pretrained(tmp_path / "half")
    tiny_processor().save_pretrained(tmp_path / "half")
    return tmp_path / "half"


@pytest.mark.parametrize("rule", sweep(["recover", "fisher"], ["recover"]))
def test_rules_compute_in_single_precision_on_every_device(
    rule, half_directory, folder, tmp_path, request
):
    """Losses near 0 are differences of cosines near 1, which half precision has 0.0005 apart."""
    run(rule, half_directory, folder, tmp_path / "cpu")
    request.getfixturevalue("half_everywhere")
    assert load(half_directory).dtype == torch.float16
    run(rule, half_directory, folder, tmp_path / "gpu")
    first, second = (load_file(tmp_path / each / "model.safetensors") for each in ("cpu", "gpu"))
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name])


def test_seconds_are_measured_in_what_the_result_is_computed_in(
    half_everywhere, half_directory, folder
):
    sampling = Sampling("folder", folder, samples=4)
    source = open_source(Checkpoints(str(half_directory)), sampling, Needs())
    (subject,) = source.subjects
    assert source.model.dtype == subject.model.dtype == torch.float32
    places = subject.deployed(Deployment()), source.deployed(source.model, Deployment())
    assert [place.model.dtype for place in places] == [torch.float16] * 2
    assert subject.model.dtype == torch.float32  # left as it was


def test_a_half_precision_checkpoint_gives_a_half_precision_one(folder, tmp_path):
    tiny_clip().half().save_pretrained(tmp_path / "half")
    tiny_processor().save_pretrained(tmp_path / "half")
    run("fisher", tmp_path / "half", folder, tmp_path / "out")
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}


def test_a_vision_tower_alone_borrows_a_text_tower(clip_directory, folder, tmp_path, capsys):
    config = tiny_clip().config.vision_config
    vision = CLIPVisionModelWithProjection.from_pretrained(clip_directory, config=config)
    vision.save_pretrained(tmp_path / "vision")
    tiny_processor().image_processor.save_pretrained(tmp_path / "vision")
    assert "text model" in refused(capsys, "fisher", tmp_path / "vision", folder, tmp_path / "a")
    run("fisher", tmp_path / "vision", folder, tmp_path / "a", "--text-model", clip_directory)
    run("fisher", clip_directory, folder, tmp_path / "b")
    masks = [Mask.load(tmp_path / name / "mask.safetensors") for name in "ab"]
    assert masks[0] == masks[1]


def test_the_library_functions_do_what_the_command_does(clip_directory, folder, tmp_path):
    run("fisher", clip_directory, folder, tmp_path / "out", "--batch-size", 32)
    model = load(clip_directory)
    importance = fisher.scores(model, load_corpus("folder", folder, "train"), samples=12, seed=0)
    mask = fisher.select(importance, 0.5, model.config)
    assert mask == Mask.load(tmp_path / "out" / "mask.safetensors")


def test_an_unreadable_image_is_left_out_and_named(clip_directory, folder, tmp_path, capsys):
    shutil.copytree(folder, tmp_path / "corpus")
    broken = tmp_path / "corpus" / "train" / "train-003.png"
    broken.write_bytes(broken.read_bytes()[:60])
    run("fisher", clip_directory, tmp_path / "corpus", tmp_path / "out", "--samples", 99)
    record = json.loads((tmp_path / "out" / "compression.json").read_text())
    assert len(record["unreadable_images"]) == 1
    assert "train-003" in record["unreadable_images"][0]
    assert "train-003" in capsys.readouterr().out
    assert record["samples"] == 15


@pytest.mark.parametrize(
    ("rule", "flags", "reason"),
    [
        ("fisher", ("--mac-constraint", 0), "--mac-constraint must be in (0, 1]"),
        ("fisher", ("--mac-constraint", 1.5), "--mac-constraint must be in (0, 1]"),
        ("sensitivity", ("--heads", 13), "13 heads can't go: the vision tower has 12"),
        ("fisher", ("--device", "cuda:7"), "device cuda:7"),
        ("fisher", ("--samples", 0), "--samples must be at least 1"),
        ("fisher", ("--corpus", "imagenet"), "imagenet"),
        ("fisher", ("--corpus-dir", "nowhere"), "nowhere"),
    ],
)
def test_what_cannot_work_is_refused_before_it_starts(
    clip_directory, folder, tmp_path, capsys, rule, flags, reason
):
    assert reason in refused(capsys, rule, clip_directory, folder, tmp_path / "out", *flags)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_no_clip_is_refused(folder, tmp_path, capsys):
    (tmp_path / "model").mkdir()
    message = refused(capsys, "fisher", tmp_path / "model", folder, tmp_path / "out")
    assert "neither a model directory nor a model on the hub" in message
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_corpus_without_captions_is_refused(clip_directory, folder, tmp_path, capsys):
    shutil.copytree(folder, tmp_path / "corpus")
    for metadata in (tmp_path / "corpus").rglob("metadata.jsonl"):
        metadata.write_text("")
    refused(capsys, "fisher", clip_directory, tmp_path / "corpus", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_output_in_use_is_refused(clip_directory, folder, tmp_path, capsys):
    run("fisher", clip_directory, folder, tmp_path / "out")
    before = (tmp_path / "out" / "compression.json").read_text()
    assert "--overwrite" in refused(capsys, "fisher", clip_directory, folder, tmp_path / "out")
    assert (tmp_path / "out" / "compression.json").read_text() == before


@pytest.mark.parametrize("sent", sweep([signal.SIGINT, signal.SIGTERM], [signal.SIGTERM]))
def test_an_interrupted_run_leaves_nothing(clip_directory, folder, tmp_path, sent):
    line = ["-m", "compress.fisher", "--model", clip_directory, "--corpus", "folder"]
    line += ["--corpus-dir", folder, "--output", tmp_path / "out"]
    process = Process(*line, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)})
    deadline = time.monotonic() + 120
    while not any(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(sent)
    ended = process.wait()
    assert ended.returncode == 130
    assert "interrupted" in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_heads_shrink_where_their_dimensions_may_go(clip_directory, folder, tmp_path):
    flags = ("--structures", "heads", "neurons", "head_dims", "sublayers")
    run("recover", clip_directory, folder, tmp_path / "out", *flags, "--mac-constraint", 0.3)
    mask, model = Mask.load(tmp_path / "out" / "mask.safetensors"), load(tmp_path / "out")
    vision = model.config.vision_config
    assert 0.2 < mask.mac_fraction(tiny_clip().config) <= 0.3
    assert not mask.qk_dims.all()
    assert vision.query_key_sizes == mask.qk_dims.sum(1).tolist()
    assert vision.value_sizes == mask.value_dims.sum(1).tolist()
    curves = json.loads((tmp_path / "out" / "curves.json").read_text())["curves"]
    chosen = {(each["layer"], each["kind"]): each["chosen"] for each in curves}
    assert [chosen[layer, "qk_dims"] for layer in range(3)] == vision.query_key_sizes
    assert [chosen[layer, "value_dims"] for layer in range(3)] == vision.value_sizes
    assert load_curves(tmp_path / "out", mask)[0].curve.kind == "heads"


def test_what_may_not_go_stays(clip_directory, folder, tmp_path, capsys):
    flags = ("--mac-constraint", 0.7, "--structures")
    run("fisher", clip_directory, folder, tmp_path / "a", *flags, "neurons")
    mask = Mask.load(tmp_path / "a" / "mask.safetensors")
    assert mask.heads.all()
    assert mask.neurons.any(1).all()
    run("fisher", clip_directory, folder, tmp_path / "b", *flags, "sublayers")
    mask = Mask.load(tmp_path / "b" / "mask.safetensors")
    for units in (mask.heads, mask.neurons):
        assert torch.equal(units.any(1), units.all(1))
    few = ("--mac-constraint", 0.1, "--structures", "heads")
    message = refused(capsys, "fisher", clip_directory, folder, tmp_path / "c", *few)
    assert "allow more structures" in message
    dims = ("--heads", 5, "--structures", "head_dims")
    message = refused(capsys, "recover", clip_directory, folder, tmp_path / "c", *dims)
    assert "a number of heads says nothing of their sizes" in message
