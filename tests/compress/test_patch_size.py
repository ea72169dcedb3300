"""Coarser patches: the least squares solution, and what a command makes of a checkpoint."""

import json
from functools import partial

import pytest
import torch
from torch.nn.functional import linear

from commands.run import run_command
from compress import joint, patch_size, recover
from compress.budgets import token_prices
from compress.budgets.token_prices import SecondPrices
from compress.calibrating.moments import Moments
from compress.patch_size import patches, solve
from compress.searching import combinations, latency
from pruning_mechanism import Reduction, Tower, load, load_processor, macs, reduce
from pruning_mechanism.deployed.seconds import measure
from tests.conftest import tiny_clip

SMALL = ("--curve-samples", "8", "--samples", "16")


@pytest.fixture
def command(folder, tmp_path):
    """Runs a command of the package and gives the record that it wrote."""

    def run(module, options, model, *flags, output="out"):
        given = ["--model", str(model), "--corpus", "folder", "--corpus-dir", str(folder)]
        given += ["--output", str(tmp_path / output), *flags]
        run_command(module.main, options, module.__name__, given)
        return json.loads((tmp_path / output / "compression.json").read_text())

    return run


@pytest.fixture
def coarser(command, tmp_path):
    """Makes a checkpoint whose patches are of another side."""

    def make(model, side):
        flags = ("--samples", "16", "--patch-size", side, "--align", "none")
        record = command(patch_size, patch_size.PatchCommandOptions, model, *flags, output="coarse")
        assert record["chain"] == [f"patch_size patch {side}"]
        return tmp_path / "coarse"

    return make


@pytest.fixture
def coarse(coarser, clip_directory):
    """The tiny checkpoint with patches of half the side."""
    return coarser(clip_directory, "2")


def test_patches_are_read_as_a_convolution_reads_them():
    embedding = Tower.of(tiny_clip()).root.embeddings.patch_embedding
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = embedding(pixels).flatten(2).transpose(1, 2)
        found = linear(patches(pixels, 4), embedding.weight.flatten(1))
    torch.testing.assert_close(found, expected)


def moments(count, weight, constant, seed):
    generator = torch.Generator().manual_seed(seed)
    small = torch.randn(count, len(weight), generator=generator, dtype=torch.float64)
    made = Moments(*weight.shape)
    made.add_batch(small, small @ weight + constant)
    return made


def test_what_is_linear_in_coarse_patches_is_found():
    """The weights and, in the positions of all patches, the constant."""
    model = reduce(tiny_clip(), Reduction(patch_size=2))
    embeddings = Tower.of(model).root.embeddings
    positions = embeddings.position_embedding.weight.detach().clone()
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(12, 16, generator=generator, dtype=torch.float64)
    constant = torch.randn(16, generator=generator, dtype=torch.float64)
    note = solve(model, *(moments(400, weight, constant, seed) for seed in (2, 3)))
    found = embeddings.patch_embedding.weight.flatten(1).T
    torch.testing.assert_close(found, weight.float(), atol=1e-4, rtol=1e-4)
    moved = embeddings.position_embedding.weight - positions
    torch.testing.assert_close(moved[1:], constant.float().expand(16, 16), atol=1e-4, rtol=1e-4)
    assert not moved[0].any()
    assert float(note.split()[4]) < 1e-6


def test_without_images_to_judge_by_the_resized_weights_stay():
    model = reduce(tiny_clip(), Reduction(patch_size=2))
    before = Tower.of(model).root.embeddings.patch_embedding.weight.detach().clone()
    assert "resized weights" in solve(
        model, moments(1, torch.ones(12, 16).double(), 0.0, 0), Moments(12, 16)
    )
    assert torch.equal(Tower.of(model).root.embeddings.patch_embedding.weight, before)


def test_the_same_images_are_left_out_however_they_are_batched(
    command, clip_directory, monkeypatch
):
    seen = []
    monkeypatch.setattr(patch_size, "solve", lambda _, *given: seen.append(given) or "")
    for size in ("3", "16"):
        flags = ("--samples", "16", "--align", "none", "--batch-size", size, "--overwrite")
        command(patch_size, patch_size.PatchCommandOptions, clip_directory, *flags)
    for one, other in zip(*seen, strict=True):
        torch.testing.assert_close(one.xx, other.xx, atol=1e-3, rtol=1e-5)
        assert one.xx[-1, -1] == other.xx[-1, -1]
    assert [given.xx[-1, -1].item() for given in seen[0]] == [12 * 16, 4 * 16]  # patches


def test_a_checkpoint_of_coarser_patches(coarse):
    model, record = load(coarse), json.loads((coarse / "compression.json").read_text())
    own = model.config.vision_config
    assert (own.patch_size, own.image_size, own.dense_patch_size) == (2, 8, 4)
    assert load_processor(coarse).image_processor.crop_size["height"] == 8
    assert record["mac_fraction"] == macs(model).fraction == 1
    lost, alone = (float(record["notes"][0].split()[place]) for place in (4, 10))
    assert 0 < lost <= alone < 1


def test_by_default_a_patch_has_half_the_side(command, clip_directory, tmp_path):
    record = command(patch_size, patch_size.PatchCommandOptions, clip_directory, "--samples", "8")
    assert record["constraint"] == "half patch"
    assert load(tmp_path / "out").config.vision_config.patch_size == 2


def test_pruning_goes_on_with_it(command, coarse, tmp_path):
    record = command(recover, recover.RecoverOptions, coarse, *SMALL, "--mac-constraint", "0.5")
    assert record["chain"] == ["patch_size patch 2", "recover MAC 0.5"]
    assert record["mac_fraction"] == macs(load(tmp_path / "out")).fraction <= 0.5


def test_joint_counts_seconds_of_the_full_tower_that_it_stands_before(
    command, coarser, least_directory, monkeypatch
):
    """The coarse tower takes half of the full one's time: 0.4 of that is 0.8 of its own."""
    asked, shares = [], iter([0.5, 0.39])
    under = SecondPrices.under

    def spy(prices, constraint):
        asked.append(constraint)
        return under(prices, constraint)

    compared = []

    def measured(smaller, full, _size):
        compared.append(full.model.config.vision_config.patch_size)
        return next(shares)

    monkeypatch.setattr(combinations, "MERGED", {})
    monkeypatch.setattr(token_prices, "measure", partial(measure, repetitions=1))
    monkeypatch.setattr(latency, "measured_share", measured)
    monkeypatch.setattr(SecondPrices, "under", spy)
    flags = ("--tries", "1", "--exits", "8", "--search-samples", "16", "--score-samples", "16")
    coarse = coarser(least_directory, "2")
    record = command(
        joint, joint.JointOptions, coarse, *SMALL, *flags, "--latency-constraint", "0.4"
    )
    assert asked == pytest.approx([0.8])
    assert compared == [8, 8]
    assert "took 0.390 of the full tower's seconds here, from pixels on" in record["notes"]
    assert record["chain"] == ["patch_size patch 2", "joint latency 0.4"]
