"""Healing comes closer to the full tower, is taken up again after a kill, and chains."""

import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cosine_similarity

from compress import align, flip, heal, recover
from compress.command import run_command
from compress.training.engine import last_whole
from corpora import load_corpus, open_image
from corpora.column import undecoded
from corpora.pixels import pixel_values
from pruning_mechanism import load, load_processor
from pruning_mechanism.encoding import image_embeddings
from tests.fresh import ROOT, Process, python

COMMANDS = {
    "heal": (heal.main, heal.HealOptions, ()),
    "recover": (recover.main, recover.RecoverOptions, ("--allocate", "uniform")),
    "flip": (flip.main, flip.FlipOptions, ()),
    "align": (align.main, align.AlignCommandOptions, ("--align-tokens", "class")),
}


def line(model, folder, output, *flags) -> list[str]:
    given = ["--model", model, "--corpus", "folder", "--corpus-dir", folder, "--output", output]
    return [str(part) for part in (*given, *flags)]


def healing(model, folder, tmp_path, *flags) -> list[str]:
    usual = ("--steps", 30, "--batch-size", 16, "--held-out", 24, "--state", tmp_path / "state")
    return line(model, folder, tmp_path / "out", *usual, *flags)


def run(arguments: list[str], name: str = "heal") -> None:
    main, options, usual = COMMANDS[name]
    run_command(main, options, f"compress.{name}", [*arguments, *map(str, usual)])


def interrupted(*_) -> None:
    raise KeyboardInterrupt


def record(directory: Path) -> dict:
    return json.loads((directory / "compression.json").read_text())


@torch.no_grad()
def closeness(model, full, folder) -> float:
    """Mean cosine to the full tower's embeddings."""
    files = undecoded(load_corpus("folder", folder, "train"))["image"][:]
    pixels = pixel_values(load_processor(full), [open_image(file) for file in files])
    own, wanted = (image_embeddings(load(path), pixels) for path in (model, full))
    return float(cosine_similarity(own, wanted).mean())


@pytest.fixture(scope="module")
def healed(clip_directory, damaged, hundred, tmp_path_factory):
    place = tmp_path_factory.mktemp("healed")
    run(healing(damaged, hundred, place, "--align", "none", "--target", clip_directory))
    return place / "out"


def test_it_comes_closer_to_the_full_tower(healed, damaged, clip_directory, hundred):
    before = closeness(damaged, clip_directory, hundred)
    assert closeness(healed, clip_directory, hundred) > before + 0.05


def test_all_of_the_vision_tower_has_learnt_and_nothing_else(healed, damaged):
    before, after = (load_file(path / "model.safetensors") for path in (damaged, healed))
    assert set(before) == set(after)
    for name, tensor in after.items():
        same = torch.equal(tensor, before[name])
        vision = name.startswith(("vision_model", "visual_projection"))
        # the keys' bias changes no attention, what stands before a softmax alike in all its places
        assert same != vision or "k_proj.bias" in name, name


def test_the_record_says_what_was_done(healed):
    found = record(healed)
    assert found["chain"][-1] == "heal steps 30"
    assert found["settings"]["learning_rate"] == "0.05"
    (note,) = [note for note in found["notes"] if note.startswith("trained on")]
    assert note.startswith(
        "trained on 76 images in 30 steps; agreement@10 with the full tower among 24 others: "
    )


def test_the_same_seed_gives_the_same_weights_and_leaves_no_state(
    healed, clip_directory, damaged, hundred, tmp_path
):
    run(healing(damaged, hundred, tmp_path, "--align", "none", "--target", clip_directory))
    again, first = (load_file(path / "model.safetensors") for path in (tmp_path / "out", healed))
    assert all(torch.equal(again[name], first[name]) for name in first)
    assert not list((tmp_path / "state").iterdir())


def test_after_a_kill_the_same_command_goes_on_and_ends_as_if_never_interrupted(
    healed, clip_directory, damaged, hundred, tmp_path
):
    flags = ("--align", "none", "--target", clip_directory)
    given = healing(damaged, hundred, tmp_path, *flags)
    process = Process(
        "-m", "compress.heal", *given, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("state/*/checkpoint-*/trainer_state.json")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait().returncode == -signal.SIGKILL
    steps = [int(path.name.split("-")[1]) for path in tmp_path.glob("state/*/checkpoint-*")]
    assert 0 < max(steps) < 30
    run(given)
    again, first = (load_file(path / "model.safetensors") for path in (tmp_path / "out", healed))
    assert all(torch.equal(again[name], first[name]) for name in first)


def test_a_training_that_has_ended_is_not_lost_with_the_result(
    healed, clip_directory, damaged, hundred, tmp_path, monkeypatch
):
    given = healing(damaged, hundred, tmp_path, "--align", "none", "--target", clip_directory)
    with monkeypatch.context() as patched:
        patched.setattr("compress.rule_command.write", interrupted)
        with pytest.raises(SystemExit):
            run(given)
    (state,) = (tmp_path / "state").iterdir()
    assert (state / "checkpoint-30").is_dir()
    steps = []
    monkeypatch.setattr(
        "compress.training.engine.cosine_loss", lambda own, _full: steps.append(own) or own.sum()
    )
    run(given)
    assert not steps
    assert not list((tmp_path / "state").iterdir())
    again, first = (load_file(path / "model.safetensors") for path in (tmp_path / "out", healed))
    assert all(torch.equal(again[name], first[name]) for name in first)


def test_patience_counts_what_was_looked_at_before_a_kill(
    clip_directory, damaged, hundred, tmp_path, monkeypatch
):
    flags = ("--align", "none", "--target", clip_directory, "--patience", 2)
    monkeypatch.setattr("compress.training.training.agreement", lambda *_: 0.0)

    def looks(*scores: float | None) -> list[float | None]:
        """The scores of the next looks, the first before any training; None is a kill."""
        left = list(scores)
        monkeypatch.setattr("compress.training.engine.agreement", lambda *_: given(left.pop(0)))
        return left

    def given(score: float | None) -> float:
        return interrupted() if score is None else score

    left = looks(0, 50, 40, 30, 60)
    run(healing(damaged, hundred, tmp_path / "whole", *flags))
    assert left == [60]
    looks(0, 50, 40, None)
    with pytest.raises(SystemExit):
        run(healing(damaged, hundred, tmp_path / "killed", *flags))
    left = looks(0, 30, 60)
    run(healing(damaged, hundred, tmp_path / "killed", *flags))
    assert left == [60]
    whole, killed = (
        load_file(tmp_path / name / "out" / "model.safetensors") for name in ("whole", "killed")
    )
    assert all(torch.equal(whole[name], killed[name]) for name in whole)


def test_a_checkpoint_that_a_kill_cut_off_is_passed_over(tmp_path):
    for step, content in ((3, '{"global_step": 3}'), (6, '{"glo'), (9, ""), (12, None)):
        place = tmp_path / f"checkpoint-{step}"
        place.mkdir()
        if content is not None:
            (place / "trainer_state.json").write_text(content)
    assert last_whole(tmp_path) == str(tmp_path / "checkpoint-3")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-3"]
    assert last_whole(tmp_path / "nothing") is None


def test_what_is_healed_is_pruned_again_and_the_projection_is_solved_for(
    clip_directory, hundred, tmp_path
):
    run(line(clip_directory, hundred, tmp_path / "one", "--mac-constraint", 0.6), "recover")
    run(healing(tmp_path / "one", hundred, tmp_path, "--steps", 4))
    three = tmp_path / "three"
    run(line(tmp_path / "out", hundred, three, "--mac-constraint", 0.3), "recover")
    assert record(three)["chain"] == ["recover MAC 0.6", "heal steps 4", "recover MAC 0.3"]
    assert record(tmp_path / "out")["align"] == "ridge"
    assert record(three)["mac_fraction"] <= 0.3


def test_what_reads_the_class_token_alone_learns_to_do_so_better(
    clip_directory, damaged, hundred, tmp_path
):
    narrow = tmp_path / "narrow"
    run(line(damaged, hundred, narrow), "align")
    run(healing(narrow, hundred, tmp_path, "--target", clip_directory))
    model = load(tmp_path / "out")
    assert model.visual_projection.inputs == model.config.vision_config.hidden_size
    before = closeness(narrow, clip_directory, hundred)
    assert closeness(tmp_path / "out", clip_directory, hundred) > before


def test_the_full_tower_itself_has_nothing_to_learn(clip_directory, hundred, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        run(healing(clip_directory, hundred, tmp_path))
    assert ended.value.code == 2
    assert "is the full tower itself" in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_too_few_images_are_refused(clip_directory, damaged, folder, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        run(healing(damaged, folder, tmp_path, "--target", clip_directory))
    assert ended.value.code == 2
    assert "16 readable calibration images are too few" in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_a_training_that_makes_it_worse_leaves_it_as_it_was(
    clip_directory, damaged, hundred, tmp_path
):
    flags = ("--learning-rate", 50, "--align", "none", "--target", clip_directory)
    run(healing(damaged, hundred, tmp_path, *flags))
    assert "it is as it was" in " ".join(record(tmp_path / "out")["notes"])
    before, after = (load_file(path / "model.safetensors") for path in (damaged, tmp_path / "out"))
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_without_accelerate_it_says_what_to_install(clip_directory, damaged, hundred, tmp_path):
    code = (
        "import runpy, sys; sys.modules['accelerate'] = None; sys.path.insert(0, sys.argv.pop(1));"
        "runpy.run_module('compress.heal', run_name='__main__', alter_sys=True)"
    )
    given = healing(damaged, hundred, tmp_path, "--target", clip_directory)
    ended = python("-c", code, ROOT, *given, cwd=tmp_path, check=False)
    assert ended.returncode == 2
    said = "error: this needs accelerate: pip install 'clip-cascade[train]'"
    assert ended.stderr.splitlines()[-1] == said
    assert not list(tmp_path.iterdir())


def test_two_processes_train_together(clip_directory, damaged, hundred, tmp_path):
    """Half of each batch in either: the weights are those of one process, but for rounding."""
    flags = ("--align", "none", "--target", clip_directory, "--steps", 4, "--learning-rate", 0.005)
    run(healing(damaged, hundred, tmp_path / "alone", *flags))
    given = healing(damaged, hundred, tmp_path, *flags)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    pair = [
        Process(
            "-m",
            "compress.heal",
            *given,
            cwd=tmp_path,
            env=os.environ
            | {"PYTHONPATH": str(ROOT), "WORLD_SIZE": "2", "RANK": rank, "LOCAL_RANK": rank}
            | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port},
        )
        for rank in ("0", "1")
    ]
    for ended in [process.wait() for process in pair]:
        assert ended.returncode == 0, ended.stderr
    assert not list((tmp_path / "state").iterdir())
    places = (damaged, tmp_path / "alone" / "out", tmp_path / "out")
    before, alone, together = (load_file(place / "model.safetensors") for place in places)
    learnt, apart = (
        sum(float((found[name] - other).square().sum()) for name, other in alone.items())
        for found in (before, together)
    )
    assert learnt > 0
    assert apart < 1e-4 * learnt


def test_products_in_bfloat16_and_affinity_train_too(clip_directory, damaged, hundred, tmp_path):
    flags = ("--precision", "bfloat16", "--affinity", 0.5, "--steps", 8, "--align", "none")
    run(healing(damaged, hundred, tmp_path, "--target", clip_directory, *flags))
    before, after = (load_file(path / "model.safetensors") for path in (damaged, tmp_path / "out"))
    assert {tensor.dtype for tensor in after.values()} == {torch.float32}
    assert any(not torch.equal(after[name], before[name]) for name in before)
