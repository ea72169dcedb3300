"""The commands that leave out tokens or layers."""

import json
import time
from itertools import pairwise

import pytest
import torch
from torch.nn.functional import cosine_similarity

from cascade import Stage
from compress import align, early_exit, flip, merge, patch_size, rank, resolution
from compress.budgets.budgets import MacBudget
from compress.budgets.schedules import spread
from compress.command import run_command
from compress.errors import UserError
from compress.making.keys import read_keys
from compress.making.make import make
from compress.making.source import Needs, Source, open_source
from compress.options import TokenOptions
from compress.rank import leave_one_out
from compress.resolution import lowest_bound, places
from pruning_mechanism import (
    Reduction,
    Tower,
    TowerError,
    image_embeddings,
    load,
    load_processor,
    macs,
    reduce,
)
from pruning_mechanism.checkpoints.checkpoint import stored_dtype
from tests.compress.solving.test_alignment import calibration
from tests.conftest import tiny_clip, tiny_processor
from tests.lanes import sweep

COMMANDS = {
    "flip": (flip.main, flip.FlipOptions),
    "merge": (merge.main, merge.MergeOptions),
    "rank": (rank.main, rank.RankOptions),
    "resolution": (resolution.main, resolution.ResolutionCommandOptions),
    "patch_size": (patch_size.main, patch_size.PatchCommandOptions),
    "exit": (early_exit.main, early_exit.EarlyExitOptions),
    "align": (align.main, align.AlignCommandOptions),
}


@pytest.fixture
def command(clip_directory, folder, tmp_path):
    """Runs a rule's command on the tiny checkpoint and gives the directory that it wrote."""

    def run(name: str, *flags: str, model=clip_directory, output: str = "out"):
        given = ["--model", str(model), "--corpus", "folder", "--corpus-dir", str(folder)]
        given += ["--samples", "16", "--output", str(tmp_path / output), *flags]
        run_command(*COMMANDS[name], f"compress.{name}", given)
        return tmp_path / output

    return run


def test_an_alignment_that_half_precision_cannot_hold_is_stored_in_float32(command, tmp_path):
    model = tiny_clip()
    with torch.no_grad():
        weight = model.visual_projection.weight
        weight *= 60_000 / weight.abs().max()  # so that the aligned bias is beyond 65,504
    model.half().save_pretrained(tmp_path / "half")
    tiny_processor().save_pretrained(tmp_path / "half")
    directory = command("flip", "--mask", "0.5", "--align", "ridge", model=tmp_path / "half")
    assert stored_dtype(directory) == torch.float32
    assert load(directory).visual_projection.linear.bias.abs().max() > 65_504
    (note,) = record(directory)["notes"]
    assert "stored in float32, not in float16 as its base: visual_projection.linear" in note


def record(directory) -> dict:
    return json.loads((directory / "compression.json").read_text())


COMMAND_LINES = (
    ("flip", ("--mask", "0.5"), "mask 0.5", None),
    ("flip", ("--mac-constraint", "0.5", "--keep", "saliency"), "MAC 0.5", 0.5),
    ("merge", ("--r", "3"), "r 3", None),
    ("merge", ("--mac-constraint", "0.6", "--schedule", "decreasing"), "MAC 0.6", 0.6),
    ("rank", ("--keep", "0.5", "--after", "1,2"), "keep 0.5", None),
    ("rank", ("--mac-constraint", "0.6", "--ranker", "learned"), "MAC 0.6", 0.6),
    ("resolution", ("--resolution", "8"), "resolution 8", None),
    ("resolution", ("--mac-constraint", "0.6"), "MAC 0.6", 0.6),
    ("resolution", ("--choose-from", "8,16", "--mac-constraint", "0.6"), "MAC 0.6", 0.6),
    ("exit", ("--layer", "2"), "layer 2", 2 / 3),
    ("exit", ("--mac-constraint", "0.5"), "MAC 0.5", 1 / 3),
)


@pytest.mark.parametrize(
    ("name", "flags", "constraint", "fraction"),
    sweep(COMMAND_LINES, [line for line in COMMAND_LINES if line[2].startswith("MAC")]),
)
def test_a_command_writes_a_checkpoint_within_its_constraint(
    command, name, flags, constraint, fraction
):
    directory = command(name, *flags)
    found, model = record(directory), load(directory)
    assert found["constraint"] == constraint
    assert found["chain"] == [f"{found['rule']} {constraint}"]
    assert found["mac_fraction"] == macs(model).fraction < 1
    if fraction:
        assert found["mac_fraction"] <= fraction + 1e-9
    assert model.config.vision_config.aligned_features == 64
    size = load_processor(directory).image_processor.crop_size["height"]
    assert size == model.config.vision_config.image_size


@pytest.mark.parametrize(
    ("flags", "fraction"),
    [(("--keep", "0.5", "--after", "1"), None), (("--mac-constraint", "0.8"), 0.8)],
)
def test_texts_are_ranked_within_a_constraint_and_not_aligned(
    command, clip_directory, flags, fraction
):
    directory = command("rank", "--tower", "text", *flags)
    found, model, dense = record(directory), load(directory), load(clip_directory)
    assert (found["tower"], found["align"], found["settings"]["align"]) == ("text", "none", "none")
    assert found["mac_fraction"] == macs(model, "text").fraction < 1
    if fraction:
        assert 0.9 * fraction < found["mac_fraction"] <= fraction
    assert macs(model) == macs(dense)
    assert isinstance(model.visual_projection, torch.nn.Linear)
    stages = [Stage.load(place) for place in (clip_directory, directory)]
    assert stages[0].text_name != stages[1].text_name
    texts = ["a red star", "a big blue disc on the left of a small green square and a star"]
    dense_texts, ranked_texts = (stage.encode_texts(texts) for stage in stages)
    alone = torch.cat([stages[1].encode_texts([text]) for text in texts])
    torch.testing.assert_close(ranked_texts, alone, atol=1e-6, rtol=0)
    assert (ranked_texts[1] - dense_texts[1]).abs().max() > 1e-4


@pytest.mark.parametrize(
    "flags", [("--align", "ridge"), ("--ranker", "attention"), ("--rank-samples", "20")]
)
def test_what_is_of_images_is_refused_where_texts_are_ranked(command, capsys, tmp_path, flags):
    with pytest.raises(SystemExit) as caught:
        command("rank", "--tower", "text", *flags)
    assert caught.value.code == 2
    message = capsys.readouterr().err.strip().split("\n")[-1]
    assert message == f"error: {flags[0]} has no effect with --tower text: leave one of them out"
    assert not (tmp_path / "out").exists()


def test_a_chain_is_one_checkpoint_that_knows_its_base(command, clip_directory):
    first = command("merge", "--r", "2", output="merged")
    second = command("exit", "--layer", "2", model=first, output="ended")
    third = command("align", "--align-features", "0", model=second, output="aligned")
    found = record(third)
    assert found["chain"] == ["merge r 2", "exit layer 2", "align ridge"]
    assert found["base"] == clip_directory.name
    own = load(third).config.vision_config
    assert (own.num_hidden_layers, own.merged_per_layer) == (2, [2, 2])
    assert own.aligned_features == 0
    assert len(read_keys(third)) == 16


def test_an_alignment_reads_the_class_token_alone_until_told_otherwise(command, clip_directory):
    ended = command("exit", "--layer", "2", "--align-tokens", "class", output="ended")
    reduced = command("merge", "--r", "2", model=ended, output="merged")
    wide = command("align", "--align-tokens", "all", model=reduced, output="wide")
    narrow = command("align", "--align-tokens", "class", model=wide, output="narrow")
    hidden = load(clip_directory).config.vision_config.hidden_size
    for directory, tokens, inputs in (
        (ended, "class", hidden),
        (reduced, "class", hidden),
        (wide, None, 2 * hidden),
        (narrow, "class", hidden),
    ):
        model = load(directory)
        own, projection = model.config.vision_config, model.visual_projection
        assert (own.aligned_tokens, projection.inputs) == (tokens, inputs)
        assert own.aligned_features == projection.random_features == 4 * hidden


def test_without_alignment_the_projection_stays(command, clip_directory):
    directory = command("exit", "--layer", "2", "--align", "none")
    projections = [load(each).visual_projection.weight for each in (directory, clip_directory)]
    assert torch.equal(*projections)
    assert record(directory)["align"] == "none"


@pytest.mark.parametrize(
    ("name", "flags", "said"),
    [
        ("flip", ("--mask", "1"), "--mask must be in [0, 1)"),
        ("merge", ("--r", "-1"), "--r must be at least 0"),
        ("merge", ("--mac-constraint", "0.01"), "the least that this rule leaves"),
        ("rank", ("--keep", "0"), "--keep must be in (0, 1]"),
        ("rank", ("--after", "9"), "layers from 1 to 3"),
        ("resolution", ("--resolution", "9"), "multiple"),
        ("resolution", ("--choose-from", "8"), "two sides at least"),
        ("patch_size", ("--patch-size", "4"), "are 4 pixels wide: take fewer, found 4"),
        ("patch_size", ("--patch-size", "0"), "--patch-size must be at least 1"),
        ("exit", ("--layer", "7"), "3 layers"),
        ("exit", ("--mac-constraint", "1.5"), "--mac-constraint must be in (0, 1]"),
        ("align", ("--align", "none"), "would change nothing"),
        ("align", ("--samples", "0"), "--samples must be at least 1"),
        ("align", ("--samples", "7"), "too few: this rule takes 8 at least"),
        ("rank", ("--ranker", "learned", "--rank-samples", "7"), "must be at least 8"),
        (
            "rank",
            ("--ranker", "learned", "--samples", "7", "--align", "none"),
            "too few: this rule takes 8 at least",
        ),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(command, capsys, tmp_path, name, flags, said):
    with pytest.raises(SystemExit) as stopped:
        command(name, *flags)
    assert stopped.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(lines) == 1
    assert said in lines[0]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("schedule", ["constant", "decreasing"])
@pytest.mark.parametrize("total", [0, 1, 7, 96])
def test_a_schedule_merges_so_many_tokens_in_all(schedule, total):
    found = spread(total, 12, schedule)
    assert sum(found) == total
    assert min(found) >= 0
    if schedule == "constant":
        assert max(found) - min(found) <= 1
    else:
        assert found[-1] == 0
        assert all(one >= other - 1 for one, other in pairwise(found))


def test_the_effect_of_a_patch_is_that_of_leaving_it_out(folder):
    model = reduce(tiny_clip(), Reduction(ranked_per_layer=(0, 8, 0), ranker="learned"))
    images = calibration(folder, 4)
    _, effects = leave_one_out(model, 1, images)
    tower, found = Tower.of(tiny_clip()), []
    with torch.no_grad():
        for batch in images.batches():
            hidden = tower.embed(batch.pixels)
            for part in tower.sublayers[:3]:
                hidden = part(hidden)

            def rest(stream):
                for part in tower.sublayers[3:]:
                    stream = part(stream)
                return tower.project(stream)

            for gone in range(1, 17):
                left = torch.cat([hidden[:, :gone], hidden[:, gone + 1 :]], dim=1)
                found.append(1 - cosine_similarity(rest(left), rest(hidden)))
    expected = torch.cat(found).sort().values
    torch.testing.assert_close(effects.sort().values, expected, atol=1e-5, rtol=1e-4)


def test_the_bound_of_resolutions_is_the_lowest_that_keeps_the_budget():
    lost = torch.rand(50, 2, generator=torch.Generator().manual_seed(0))
    lost = lost.sort(descending=True).values
    costs = torch.tensor([0.2, 0.5, 1.0], dtype=torch.float64)
    for budget in (0.21, 0.35, 0.6, 0.99):
        bound = lowest_bound(lost, costs, budget)
        assert costs[places(lost, bound)].mean() <= budget
        tighter = max([-1.0, *lost[lost < bound].tolist()])
        assert costs[places(lost, tighter)].mean() > budget


def test_without_alignment_three_images_are_enough(command):
    directory = command("flip", "--mask", "0.5", "--align", "none", "--samples", "3")
    assert record(directory)["samples"] == 3


def test_a_projection_that_stays_as_it_was_is_said(command, clip_directory, capsys):
    """Nothing was made cheaper, so nothing can be made better."""
    directory = command("align", "--samples", "8")
    (note,) = record(directory)["notes"]
    assert note.startswith("the projection stays as it was: with 8 images")
    said = " ".join(capsys.readouterr().out.split())
    assert "note: the projection stays as it was" in said
    pixels = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        given = [image_embeddings(load(each), pixels) for each in (directory, clip_directory)]
    torch.testing.assert_close(*given, rtol=1e-5, atol=1e-5)


def test_what_sides_of_their_own_cost_other_images_is_an_estimate(command):
    directory = command("resolution", "--choose-from", "8,16", "--mac-constraint", "0.6")
    assert "16 calibration images, with a standard error of" in record(directory)["notes"][0]


@pytest.fixture
def source(clip_directory, folder) -> Source:
    options = TokenOptions(model=str(clip_directory), corpus="folder", corpus_dir=folder, samples=8)
    return open_source(options.checkpoints, options.sampling, Needs(full=True))


FLIP, EXIT = flip.MaskingOptions(), early_exit.ExitOptions(layer=(2,))


def test_an_exit_comes_by_the_full_towers_embeddings_in_its_own_pass(source):
    (asked,) = early_exit.rule(EXIT).asked.values()
    step = early_exit.rule(EXIT).step(source, asked)
    torch.testing.assert_close(step.embeddings, source.full_embeddings(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("order", [("flip", "exit"), ("exit", "flip")])
def test_seconds_are_what_a_result_alone_takes_whatever_was_made_before(source, monkeypatch, order):
    """The clock counts layers of the full tower, run for its embeddings; an exit needs no such."""
    now = [0]

    def tick(*_):
        now[0] += 1

    for layer in source.model.vision_model.encoder.layers:
        layer.register_forward_hook(tick)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    rules = {"flip": (flip.rule(FLIP), FLIP), "exit": (early_exit.rule(EXIT), EXIT)}
    seconds = {}
    for name in order:
        rule, options = rules[name]
        made = make(source, rule, rule.settings[0], options.finish)
        seconds[name] = made.compression.seconds
    assert seconds == {"flip": 3, "exit": 0}


@pytest.mark.parametrize(
    ("rule", "asked"),
    [
        (flip.rule(FLIP), MacBudget(0.001)),
        (merge.rule(merge.MergingOptions()), MacBudget(0.1)),
        (rank.rule(rank.RankingOptions()), MacBudget(0.1)),
        (resolution.rule(resolution.ResolutionOptions()), MacBudget(0.01)),
        (resolution.rule(resolution.ResolutionOptions(choose_from=(8, 16))), MacBudget(0.01)),
        (early_exit.rule(EXIT), MacBudget(0.3)),
        (early_exit.rule(EXIT), 4),
    ],
)
def test_what_is_out_of_reach_is_known_before_the_work(source, rule, asked):
    rule.check(source, next(iter(rule.asked.values())))
    with pytest.raises((UserError, TowerError)):
        rule.check(source, asked)


def test_no_setting_is_made_if_one_cannot_be(command, capsys, tmp_path):
    with pytest.raises(SystemExit):
        command("exit", "--layer", "2", "7")
    assert "3 layers" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
