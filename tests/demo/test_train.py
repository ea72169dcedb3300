"""The training command: it finishes, goes on after an interruption, and refuses in one line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import CLIPModel, CLIPProcessor

from compress.command import run_command
from demo.learner import Learner
from demo.network import VISION
from demo.train import Recipe, Schedule, main

SMALL = {
    "--samples": 16,
    "--coarse": 8,
    "--decay": 8,
    "--batch": 4,
    "--evaluate-every": 8,
    "--held-out": 10,
    "--phrases": 30,
    "--threads": 1,
}


@pytest.fixture(autouse=True)
def shallow(monkeypatch):
    """Two layers instead of twelve: all are alike."""
    monkeypatch.setitem(VISION, "num_hidden_layers", 2)


@pytest.fixture
def corpus(tmp_path):
    """Twelve plain images in a folder, no two alike, as the folder corpus expects them."""
    for higher, split in enumerate(("train", "validation")):
        folder = tmp_path / "corpus" / split
        folder.mkdir(parents=True)
        lines = []
        for i, colour in enumerate(("red", "green", "blue", "white") * 3):
            Image.new("RGB", (40 + i, 30 + higher), colour).save(folder / f"{i}{split}.png")
            texts = [f"a {colour} sheet", f"everything is {colour}"]
            lines.append(json.dumps({"file_name": f"{i}{split}.png", "captions": texts}))
        (folder / "metadata.jsonl").write_text("\n".join(lines))
    return tmp_path / "corpus"


def arguments(tmp_path, folder, **changed):
    flags = SMALL | {
        "--corpus": "folder",
        "--corpus-dir": folder,
        "--output": tmp_path / "made",
        "--state": tmp_path / "state",
    }
    flags |= {f"--{name.replace('_', '-')}": value for name, value in changed.items()}
    return [str(word) for flag in flags.items() for word in flag]


def train(words):
    run_command(main, Recipe, "demo.train", words)


def test_a_training_ends_in_a_checkpoint_in_half_precision_and_leaves_no_state(
    tmp_path, corpus, capsys
):
    train(arguments(tmp_path, corpus))
    model = CLIPModel.from_pretrained(tmp_path / "made")
    assert model.dtype == torch.float16
    assert CLIPProcessor.from_pretrained(tmp_path / "made").tokenizer("a red sheet")
    assert not list((tmp_path / "state").iterdir())
    assert "held-out Recall@1" in capsys.readouterr().out


def test_a_training_taken_up_again_ends_as_if_never_interrupted(tmp_path, corpus, monkeypatch):
    monkeypatch.setattr("demo.train.SECONDS_BETWEEN_SAVES", 0)
    train(arguments(tmp_path, corpus, output=tmp_path / "whole", state=tmp_path / "s"))
    step = Learner.step

    def interrupted(self, batch, pace):
        if self.steps == 2:
            raise KeyboardInterrupt
        return step(self, batch, pace)

    monkeypatch.setattr(Learner, "step", interrupted)
    with pytest.raises(SystemExit):
        train(arguments(tmp_path, corpus))
    assert not (tmp_path / "made").exists()
    monkeypatch.setattr(Learner, "step", step)
    train(arguments(tmp_path, corpus))
    whole, again = (
        CLIPModel.from_pretrained(tmp_path / name).state_dict() for name in ("whole", "made")
    )
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_a_kept_training_of_another_recipe_is_not_taken_up(tmp_path, corpus, monkeypatch, capsys):
    monkeypatch.setattr("demo.train.SECONDS_BETWEEN_SAVES", 0)
    monkeypatch.setattr("demo.train._export", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(arguments(tmp_path, corpus))
    with pytest.raises(SystemExit) as stopped:
        train(arguments(tmp_path, corpus, seed=5))
    assert stopped.value.code == 2
    assert "seed 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"samples": 3}, "--batch"),
        ({"texts": 0}, "--texts"),
        ({"device": "cuda:99"}, "the device cuda:99"),
        ({"corpus": "nothing"}, "nothing"),
    ],
)
def test_bad_input_is_said_in_one_line_before_the_work_starts(
    tmp_path, corpus, capsys, changed, word
):
    with pytest.raises(SystemExit) as stopped:
        train(arguments(tmp_path, corpus, **changed))
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert word in said
    assert said.count("\n") == 1
    assert not (tmp_path / "made").exists()


def test_a_finished_checkpoint_is_overwritten_only_if_told_to(tmp_path, corpus):
    made = tmp_path / "made"
    train(arguments(tmp_path, corpus))
    (made / "README.md").write_text("a card")
    before = (made / "model.safetensors").stat().st_mtime_ns
    with pytest.raises(SystemExit):
        train(arguments(tmp_path, corpus))
    assert (made / "model.safetensors").stat().st_mtime_ns == before
    train([*arguments(tmp_path, corpus), "--overwrite"])
    assert (made / "model.safetensors").stat().st_mtime_ns > before
    assert CLIPModel.from_pretrained(made)
    assert (made / "README.md").read_text() == "a card"


def test_a_checkpoint_that_was_not_trained_here_is_never_overwritten(tmp_path, corpus, capsys):
    made = tmp_path / "made"
    made.mkdir()
    (made / "model.safetensors").write_bytes(b"old")
    with pytest.raises(SystemExit):
        train([*arguments(tmp_path, corpus), "--overwrite"])
    assert "not an earlier result" in capsys.readouterr().err
    assert (made / "model.safetensors").read_bytes() == b"old"


def test_the_schedule_rises_stays_and_falls_to_nearly_zero():
    schedule = Schedule(samples=10_000, coarse=6_000, decay=2_000, batch=10)
    pace = [schedule.pace(step) for step in range(schedule.steps)]
    assert pace[0] < 0.05
    assert pace[60:800] == [1.0] * 740
    assert 0 < pace[-1] < 0.01
    sides = [schedule.side(step) for step in range(schedule.steps)]
    assert sides == [64] * 600 + [128] * 400


def test_help_shows_defaults_and_an_example():
    run = subprocess.run(
        [sys.executable, "-m", "demo.train", "--help"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=True,
    )
    words = " ".join(run.stdout.replace("│", " ").split())
    assert "default: demo/clip-scenes" in words
    assert "Example: python -m demo.train" in words
