"""`--tower` and the families, through the commands; and corpora without captions."""

import json
import shutil
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cosine_similarity

from compress import baseline, fisher, recover, sensitivity
from compress.command import run_command
from compress.making.keys import read_keys
from corpora import load_corpus
from evaluation import cascade
from pruning_mechanism import Mask, Tower, is_pruned, load, load_processor, macs, tokenise
from tests.lanes import sweep

COMMANDS = {
    "baseline": (baseline.main, baseline.BaselineOptions),
    "cascade": (cascade.main, cascade.CascadeOptions),
    "fisher": (fisher.main, fisher.FisherOptions),
    "recover": (recover.main, recover.RecoverOptions),
    "sensitivity": (sensitivity.main, sensitivity.SensitivityOptions),
}
OF_TOWER = {"vision": ("vision_model", "visual_projection"), "text": ("text_",)}
FAST = ("--allocate", "uniform")
TEXTS = [f"a {size} {name} star" for size in ("big", "small") for name in ("red", "green", "blue")]


def run(command: str, model: Path, folder: Path, output: Path, *flags) -> Path:
    main, options = COMMANDS[command]
    given = ["--model", model, "--corpus", "folder", "--corpus-dir", folder, "--output", output]
    given += ["--samples", 16, "--batch-size", 8, *flags]
    run_command(main, options, command, [str(each) for each in given])
    return output


def refused(capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code == 2
    message = capsys.readouterr().err.strip().split("\n")[-1]
    assert message.startswith("error: ")
    return message


@pytest.fixture(scope="module")
def uncaptioned(folder, tmp_path_factory) -> Path:
    """The images of `folder`, without its metadata."""
    place = tmp_path_factory.mktemp("images") / "only"
    shutil.copytree(folder, place, ignore=shutil.ignore_patterns("metadata.jsonl"))
    return place


@torch.no_grad()
def text_distance(base: Path, smaller: Path) -> float:
    """Mean 1 - cos of what two checkpoints make of texts."""
    model, tokenizer = load(base), load_processor(base).tokenizer
    tokens = tokenise(model, tokenizer, TEXTS)
    towers = [Tower.of(each, "text") for each in (model, load(smaller))]
    return 1 - cosine_similarity(*(tower.embeddings(tokens) for tower in towers)).mean().item()


@pytest.mark.parametrize("family", sweep(["clip", "siglip", "metaclip_2"], ["siglip"]))
def test_a_smaller_text_tower_is_repaired_towards_the_dense_one(
    family, family_directory, folder, tmp_path
):
    base, distances = family_directory(family), {}
    for repair in ("reconstruct", "none"):
        flags = ("--tower", "text", "--repair", repair, *FAST)
        out = run("recover", base, folder, tmp_path / repair, *flags)
        distances[repair] = text_distance(base, out)
        model, record = load(out), json.loads((out / "compression.json").read_text())
        assert is_pruned(model, "text")
        assert not is_pruned(model, "vision")
        assert record["tower"] == "text"
        assert 0.35 < record["mac_fraction"] <= 0.5
        mask = Mask.load(out / "mask-text.safetensors")
        assert mask.mac_fraction(model.config, "text") == pytest.approx(record["mac_fraction"])
        assert not (out / "mask.safetensors").exists()
    assert distances["reconstruct"] < distances["none"]


EVERYTHING = ("--structures", "heads", "neurons", "head_dims", "sublayers")


@pytest.mark.parametrize("flags", sweep([(), EVERYTHING], [EVERYTHING]))
def test_both_towers_are_made_smaller_as_each_is_alone(family_directory, folder, tmp_path, flags):
    base, few = family_directory("clip"), ("--curve-samples", 8)
    made = {
        tower: run("recover", base, folder, tmp_path / tower, "--tower", tower, *few, *flags)
        for tower in ("vision", "text", "both")
    }
    for tower, ending in (("vision", ""), ("text", "-text")):
        for file in (f"mask{ending}.safetensors", f"repair{ending}.json", f"curves{ending}.json"):
            assert (made["both"] / file).read_bytes() == (made[tower] / file).read_bytes()
        mask = Mask.load(made[tower] / f"mask{ending}.safetensors")
        assert ("head_dims" in flags) == (mask.qk_dims is not None and not mask.qk_dims.all())
        weights = [load_file(made[each] / "model.safetensors") for each in ("both", tower)]
        for name in weights[0]:
            if name.startswith(OF_TOWER[tower]):
                assert torch.equal(weights[0][name], weights[1][name])
    records = {
        tower: json.loads((place / "compression.json").read_text()) for tower, place in made.items()
    }
    for count in ("macs", "tower_macs", "parameters"):
        assert records["both"][count] == records["vision"][count] + records["text"][count]
    assert records["both"]["mac_fraction"] <= 0.5


RULES = {
    "curves": ("recover", "--curve-samples", 8),
    "embedding": ("fisher", "--objective", "embedding"),
    "contrastive": ("fisher", "--objective", "contrastive"),
    "heads": ("sensitivity", "--heads", 5),
    "taylor": ("baseline", "--importance", "taylor"),
    "hessian": ("baseline", "--importance", "hessian"),
}
SOME_OF_EACH = (
    ("curves", "siglip", "text"),
    ("contrastive", "metaclip_2", "text"),
    ("taylor", "metaclip_2", "vision"),
    ("hessian", "siglip", "vision"),
)


@pytest.mark.parametrize(
    ("rule", "family", "tower"),
    sweep(product(RULES, ("siglip", "metaclip_2"), ("vision", "text")), SOME_OF_EACH),
)
def test_every_rule_works_on_both_towers_of_other_families(
    rule, family, tower, family_directory, folder, tmp_path
):
    base, (command, *flags) = family_directory(family), RULES[rule]
    out = run(command, base, folder, tmp_path / "out", "--tower", tower, *flags)
    model = load(out)
    assert is_pruned(model, tower)
    record = json.loads((out / "compression.json").read_text())
    assert 0.3 < record["mac_fraction"] < 0.9
    assert not any("not finite" in note for note in record["notes"])


CAPTIONLESS = (
    ("recover", *FAST),
    ("fisher", "--objective", "embedding"),
    ("baseline", "--importance", "magnitude"),
)


def test_rules_that_read_no_captions_work_on_images_alone(clip_directory, uncaptioned, tmp_path):
    for number, (command, *flags) in enumerate(CAPTIONLESS):
        out = run(command, clip_directory, uncaptioned, tmp_path / str(number), *flags)
        assert is_pruned(load(out))
    keys = read_keys(tmp_path / "0")
    assert len(keys) == 16
    assert all(key.startswith("train/train-") for key in keys)


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("fisher", ()),
        ("sensitivity", ()),
        ("baseline", ("--importance", "taylor")),
        ("recover", ("--tower", "text")),
        ("recover", ("--tower", "both")),
        ("cascade", ()),
    ],
)
def test_what_reads_captions_is_refused_on_images_alone(
    clip_directory, uncaptioned, tmp_path, capsys, command, flags
):
    message = refused(capsys, command, clip_directory, uncaptioned, tmp_path / "out", *flags)
    assert "no metadata.jsonl" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "family", "flags", "reason"),
    [
        ("recover", "altclip", ("--tower", "text"), "the text tower of AltCLIP normalises after"),
        ("recover", "chinese_clip", ("--tower", "both"), "the text tower of Chinese-CLIP"),
        ("recover", "clip", ("--tower", "text", "--latency-constraint", 0.5), "vision towers only"),
        (
            "sensitivity",
            "clip",
            ("--tower", "text", "--heads", 13),
            "13 heads can't go: the text tower has 12",
        ),
        (
            "fisher",
            "clip",
            ("--tower", "text", "--text-model", "other"),
            "has a text tower of its own: leave it out",
        ),
        ("cascade", "clip", ("--tower", "both"), "only vision towers are measured"),
    ],
)
def test_what_cannot_be_done_with_a_tower_is_refused_in_one_line(
    family_directory, folder, tmp_path, capsys, command, family, flags, reason
):
    base = family_directory(family)
    assert reason in refused(capsys, command, base, folder, tmp_path / "out", *flags)
    assert list(tmp_path.iterdir()) == []


def test_a_stage_with_a_smaller_text_tower_is_not_measured(
    clip_directory, folder, tmp_path, capsys
):
    stage = run("recover", clip_directory, folder, tmp_path / "text", "--tower", "text", *FAST)
    message = refused(capsys, "cascade", clip_directory, folder, tmp_path / "out", "--stage", stage)
    assert "its text tower is smaller too" in message


def test_a_checkpoint_may_have_its_towers_made_smaller_one_after_the_other(
    clip_directory, folder, tmp_path
):
    first = run("recover", clip_directory, folder, tmp_path / "text", "--tower", "text", *FAST)
    second = run("recover", first, folder, tmp_path / "both", *FAST)
    assert all(is_pruned(load(second), kind) for kind in ("vision", "text"))
    smaller = (*FAST, "--mac-constraint", 0.25)
    third = run("recover", second, folder, tmp_path / "again", "--tower", "both", *smaller)
    for kind in ("vision", "text"):
        assert macs(load(third), kind).fraction <= 0.25 < macs(load(second), kind).fraction


def test_a_summary_names_the_towers(clip_directory, folder, tmp_path, capsys):
    run("recover", clip_directory, folder, tmp_path / "out", "--tower", "both", *FAST)
    words = [set(line.split()) for line in capsys.readouterr().out.splitlines()]
    for row in ("before", "after"):
        for tower in ("vision", "text"):
            assert sum({row, tower} <= each for each in words) == 1


def test_scores_of_a_text_tower_do_what_the_command_does(clip_directory, folder, tmp_path):
    out = run(
        "fisher",
        clip_directory,
        folder,
        tmp_path / "out",
        "--tower",
        "text",
        "--objective",
        "embedding",
        "--batch-size",
        32,
    )
    model, corpus = load(clip_directory), load_corpus("folder", folder, "train")
    importance = fisher.scores(
        model, corpus, samples=16, seed=0, tower="text", objective="embedding"
    )
    mask = fisher.select(importance, 0.5, model.config, tower="text")
    assert mask == Mask.load(out / "mask-text.safetensors")
