"""Rules after rules, in any order that makes sense: each chain is one checkpoint."""

import json
from itertools import product
from pathlib import Path

import pytest
import torch

from compress import early_exit, fisher, flip, merge, rank, recover, sensitivity
from compress.command import run_command
from compress.making.keys import read_keys
from pruning_mechanism import Mask, Tower, load, macs
from tests.conftest import tiny_clip
from tests.lanes import sweep

COMMANDS = {
    "recover": (recover.main, recover.RecoverOptions, ("--allocate", "uniform")),
    "curves": (recover.main, recover.RecoverOptions, ("--curve-samples", "8")),
    "fisher": (fisher.main, fisher.FisherOptions, ("--objective", "embedding")),
    "sensitivity": (sensitivity.main, sensitivity.SensitivityOptions, ()),
    "flip": (flip.main, flip.FlipOptions, ()),
    "merge": (merge.main, merge.MergeOptions, ()),
    "rank": (rank.main, rank.RankOptions, ()),
    "exit": (early_exit.main, early_exit.EarlyExitOptions, ()),
}


@pytest.fixture(scope="module")
def chain(clip_directory, folder, tmp_path_factory):
    """Runs one command after the other, each on the last one's result; gives the directories.

    What two chains begin with is made once.
    """
    place, known = tmp_path_factory.mktemp("chains"), {(): clip_directory}

    def made(steps: tuple) -> Path:
        if steps not in known:
            *before, (name, *flags) = steps
            main, options, usual = COMMANDS[name]
            model, output = made(tuple(before)), place / f"made-{len(known)}"
            given = ["--model", model, "--corpus", "folder", "--corpus-dir", folder]
            given += ["--samples", 12, "--output", output, *usual, *flags]
            run_command(main, options, "compress", [str(each) for each in given])
            known[steps] = output
        return known[steps]

    return lambda *steps: [made(steps[: count + 1]) for count in range(len(steps))]


def record(directory) -> dict:
    return json.loads((directory / "compression.json").read_text())


HALF = ("--mac-constraint", 0.5)
QUARTER = ("--mac-constraint", 0.25)


TWICE = list(product(["recover", "fisher"], ["recover", "curves", "fisher"]))


@pytest.mark.parametrize(
    ("first", "again"),
    sweep(TWICE, [("recover", "curves"), ("fisher", "recover")]),
)
def test_what_is_pruned_can_be_pruned_once_more(chain, clip_directory, first, again):
    one, two = chain((first, *HALF), (again, *QUARTER))
    name = "recover" if again == "curves" else again
    assert record(two)["chain"] == [f"{first} MAC 0.5", f"{name} MAC 0.25"]
    assert record(two)["base"] == clip_directory.name
    assert record(two)["mac_fraction"] == macs(load(two)).fraction <= 0.25
    before, after = (load(each).config.vision_config for each in (one, two))
    for kept in ("heads_per_layer", "neurons_per_layer"):
        pairs = zip(getattr(after, kept), getattr(before, kept), strict=True)
        assert all(left <= had for left, had in pairs)


def test_a_budget_that_is_met_already_takes_nothing_away(chain):
    one, two = chain(("recover", *HALF), ("recover", "--mac-constraint", 0.9, "--repair", "none"))
    pixels = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        first, second = (Tower.of(load(each)).embeddings(pixels) for each in (one, two))
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("structures", [("heads", "neurons"), ("heads", "neurons", "head_dims")])
def test_head_dimensions_that_are_gone_stay_gone(chain, structures):
    all_of_them = ("--structures", "heads", "neurons", "head_dims")
    usual = ("--structures", *structures, "--repair", "none")
    one, two = chain(("curves", *HALF, *all_of_them), ("curves", "--mac-constraint", 1.0, *usual))
    widths = [load(each).config.vision_config for each in (one, two)]
    before, after = (
        [own.query_key_sizes, own.value_sizes, own.heads_per_layer, own.neurons_per_layer]
        for own in widths
    )
    assert min(before[0] + before[1]) < 4  # of the 4 that a dense head has
    assert before == after
    pixels = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        first, second = (Tower.of(load(each)).embeddings(pixels) for each in (one, two))
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-4)


def test_an_early_exit_can_be_pruned_and_what_is_pruned_can_exit(chain):
    for order in ((("exit", "--layer", 2), ("recover", *QUARTER)),
                  (("recover", *HALF), ("exit", "--layer", 2))):  # fmt: skip
        last = chain(*order)[-1]
        own = load(last).config.vision_config
        assert own.num_hidden_layers == len(own.heads_per_layer) == 2
        assert len(record(last)["chain"]) == 2
        assert len(set(read_keys(last))) == len(read_keys(last))


def test_fewer_patches_pay_for_more_units(chain):
    """The share is of the dense tower's MACs, whatever the tower takes in by now."""
    all_patches = chain(("recover", *QUARTER))[-1]
    few = chain(("flip", "--mask", 0.5), ("recover", *QUARTER))[-1]
    units = [sum(load(each).config.vision_config.neurons_per_layer) for each in (all_patches, few)]
    assert units[1] > units[0]
    assert record(few)["mac_fraction"] <= 0.25


def test_heads_that_go_are_counted_from_those_that_are_left(chain, capsys):
    one, two = chain(("sensitivity", "--heads", 5), ("sensitivity", "--heads", 3))
    heads = [sum(load(each).config.vision_config.heads_per_layer) for each in (one, two)]
    assert heads == [7, 4]
    with pytest.raises(SystemExit):
        chain(("sensitivity", "--heads", 9), ("sensitivity", "--heads", 4))
    assert "the vision tower has 3 of them left" in capsys.readouterr().err


def test_what_merges_tokens_is_pruned_before_it_does(chain, capsys):
    merged = chain(("recover", *HALF), ("merge", "--r", 2))[-1]
    assert record(merged)["chain"] == ["recover MAC 0.5", "merge r 2"]
    with pytest.raises(SystemExit):
        chain(("merge", "--r", 2), ("recover", *HALF))
    assert "prune it before it does" in capsys.readouterr().err


def test_pruning_can_align_what_it_makes(chain):
    made = chain(("recover", *HALF, "--align", "ridge"))[-1]
    found = record(made)
    assert (found["rule"], found["align"]) == ("recover+aligned", "ridge")
    assert found["chain"] == ["recover MAC 0.5", "align ridge"]
    mask = Mask.load(made / "mask.safetensors")
    assert mask.mac_fraction(tiny_clip().config) <= 0.5


TEXT = ("--tower", "text")


def test_texts_are_ranked_before_and_after_their_tower_is_pruned(chain):
    ranked, pruned, merged = chain(
        ("rank", *TEXT, "--keep", 0.5), ("recover", *TEXT, *HALF), ("merge", "--r", 2)
    )
    pruned_first, ranked_last = chain(("recover", *TEXT, *HALF), ("rank", *TEXT, "--keep", 0.5))
    assert record(pruned)["chain"] == ["rank keep 0.5", "recover MAC 0.5"]
    assert record(pruned)["mac_fraction"] == macs(load(pruned), "text").fraction <= 0.5
    assert record(pruned)["mac_fraction"] < record(ranked)["mac_fraction"]
    assert record(ranked_last)["mac_fraction"] < record(pruned_first)["mac_fraction"] <= 0.5
    texts = {"input_ids": torch.tensor([[0, 5, 6, 7, 8, 9, 5, 1], [0, 5, 8, 6, 1, 1, 1, 1]])}
    found = [Tower.of(load(place), "text").embeddings(texts) for place in (pruned, merged)]
    assert torch.equal(*found)
