"""What compressing costs at the shape of a ViT-B/32: seconds against a training pass, and memory.

    FISHER_RATIO_IMAGES=2048 MEMORY_IMAGES=2048 \\
        pytest tests/benchmarks/test_compress.py --benchmark-only

Meant for these sizes; with the small defaults, what doesn't depend on the number of images (solves,
the order of elimination) weighs far more than it should. The images of repair and curves are in the
same proportion to all images as by default, 1024 and 256 of 2048. `BENCH_LAYERS=2` makes a
shallower tower, to try the benchmarks out. Weights and images are random, which costs the same as
real ones.
"""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from compress import fisher, recover
from compress.calibrating.moments import Moments, output_weight
from compress.calibrating.objective import contrastive_loss
from compress.making.make import make
from compress.making.source import Source, open_source
from compress.solving.repair import DAMPINGS, rescale
from pruning_mechanism import Mask, embed, image_embeddings, prune, sublayers
from pruning_mechanism.encoding import text_embeddings
from tests.benchmarks.conftest import LAYERS, seconds
from tests.conftest import WORDS, tiny_processor, write_folder

RATIO_IMAGES = int(os.environ.get("FISHER_RATIO_IMAGES", "64"))
MEMORY_IMAGES = int(os.environ.get("MEMORY_IMAGES", "32"))
REPAIR_IMAGES, EXPLICIT_IMAGES = 64, 1
DAMPING = 1e-3


@pytest.fixture(scope="module")
def vit_b32(tmp_path_factory) -> Path:
    """A ViT-B/32 with random weights and a text tower of one layer, as a checkpoint."""
    torch.manual_seed(0)
    text = {"num_hidden_layers": 1, "vocab_size": len(WORDS) + 3, "max_position_embeddings": 16}
    text |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    vision = {"patch_size": 32, "num_hidden_layers": LAYERS}
    directory = tmp_path_factory.mktemp("checkpoint") / "vit-b32"
    CLIPModel(CLIPConfig(vision_config=vision, text_config=text)).save_pretrained(directory)
    tiny_processor(size=224).save_pretrained(directory)
    return directory


def flags(model: Path, corpus: Path, images: int, sample: int) -> dict[str, object]:
    """Options with repair and curves on the default shares of `sample` images."""
    return {
        "model": str(model),
        "corpus": "folder",
        "corpus_dir": corpus,
        "samples": images,
        "repair_samples": max(8, sample // 2),
        "curve_samples": max(8, sample // 8),
    }


def train_pass(base: Source) -> None:
    """What a training epoch of the tower does, the optimiser left out."""
    for batch in base.calibration.batches():
        with torch.no_grad():
            texts = text_embeddings(base.model, batch.tokens)
        images = image_embeddings(base.model, batch.pixels)
        contrastive_loss(images, texts, base.model.logit_scale.exp()).backward()
        base.model.zero_grad()


@pytest.mark.parametrize("rule", ["fisher", "recover"])
def test_compressing_against_one_forward_and_backward_pass(benchmark, vit_b32, tmp_path, rule):
    write_folder(tmp_path, "train", RATIO_IMAGES, 0)
    given = flags(vit_b32, tmp_path, RATIO_IMAGES, RATIO_IMAGES)
    if rule == "fisher":
        options = fisher.FisherOptions(**given)
        asked = fisher.rule(options)
    else:
        options = recover.RecoverOptions(**given)
        asked = recover.rule(options)
    base = open_source(options.checkpoints, options.sampling, replace(asked.needs, captions=True))
    train_pass(replace(base, calibration=base.calibration.first(options.batch_size)))  # warm up
    before = seconds(lambda: train_pass(base))
    smaller = benchmark.pedantic(
        make, (base, asked, asked.settings[0], options.finish), rounds=1, iterations=1
    )
    passes = [before, seconds(lambda: train_pass(base))]
    benchmark.extra_info |= {
        "threads": torch.get_num_threads(),
        "images": RATIO_IMAGES,
        "layers": LAYERS,
        "curve_images": options.curve_samples,
        "repair_images": options.repair_samples,
        "charged_seconds": round(smaller.compression.seconds, 2),
        "forward_backward_seconds": [round(each, 2) for each in passes],
        "over_forward_backward": round(benchmark.stats.stats.median * 2 / sum(passes), 2),
    }


def mlp_to_repair(model: CLIPModel):
    """Features [64, n, p] of a middle MLP with half of its neurons, its target, its weight W̃."""
    dense = Mask.dense(model.config)
    half = torch.arange(dense.neurons.shape[1]) % 2 == 0
    index = 2 * (LAYERS // 2) + 1
    whole = sublayers(model)[index]
    kept = sublayers(prune(model, Mask(dense.heads, half.expand_as(dense.neurons))))[index]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        hidden = embed(model, torch.randn(REPAIR_IMAGES, 3, 224, 224, generator=generator))
        for part in sublayers(model)[:index]:
            hidden = part(hidden)
        return kept.features(hidden), whole(hidden) - hidden, output_weight(kept)


def moments_of(features: torch.Tensor, targets: torch.Tensor) -> Moments:
    moments = Moments(features.shape[-1], targets.shape[-1])
    for x, t in zip(features.split(32), targets.split(32), strict=True):
        moments.add_batch(x, t)
    return moments


def explicit_normal(features, targets, weight) -> tuple[torch.Tensor, torch.Tensor]:
    """AᵀA and Aᵀ(t - bias) of the design matrix A with one row for each token and output."""
    units = len(weight) - 1
    normal, right = torch.zeros(units, units), torch.zeros(units)
    rows = weight[:-1].float()
    for x, t in zip(features.flatten(0, 1), targets.flatten(0, 1), strict=True):  # a token
        design = (x[:, None] * rows).T  # [outputs, units]
        normal.addmm_(design.T, design)
        right.addmv_(design.T, t - weight[-1].float())
    return normal.double(), right.double()


def solve_explicitly(normal, right, damping: float) -> torch.Tensor:
    """The factors, damped towards 1."""
    strength = damping * normal.diagonal().mean()
    damped = normal + strength * torch.eye(len(normal))
    return torch.cholesky_solve(
        (right + strength)[:, None], torch.linalg.cholesky(damped)
    ).flatten()


def test_repair_of_an_mlp_against_a_design_matrix_with_a_row_a_token_and_output(benchmark, vit_b32):
    """Both find one factor a neuron, at one damping, from features that are at hand.

    The explicit matrix is built for `EXPLICIT_IMAGES` images alone, on which the answers are
    compared; its seconds for all images are those times the ratio of the images, then the solve.
    """
    model = CLIPModel.from_pretrained(vit_b32).eval()
    features, targets, weight = mlp_to_repair(model)
    few = features[:EXPLICIT_IMAGES], targets[:EXPLICIT_IMAGES]
    found, explicit = [], []
    for_few = seconds(lambda: found.extend(explicit_normal(*few, weight)))
    solve = seconds(lambda: explicit.append(solve_explicitly(*found, DAMPING)))
    factors = explicit[0]
    implicit = rescale(moments_of(*few), weight, 1, DAMPING)

    def ours():
        return rescale(moments_of(features, targets), weight, 1, DAMPING)

    ours()
    benchmark.pedantic(ours, rounds=3, iterations=1)
    whole = for_few * REPAIR_IMAGES / EXPLICIT_IMAGES + solve
    expected = weight[:-1] * factors[:, None]
    difference = (implicit[:-1] - expected).norm() / expected.norm()
    benchmark.extra_info |= {
        "threads": torch.get_num_threads(),
        "images": REPAIR_IMAGES,
        "neurons": features.shape[-1],
        "explicit_images_built": EXPLICIT_IMAGES,
        "explicit_seconds_for_these": round(for_few, 2),
        "explicit_seconds_scaled_to_all": round(whole, 1),
        "explicit_over_ours": round(whole / benchmark.stats.stats.median, 1),
        "relative_difference": f"{difference:.1e}",
        "dampings_tried_in_a_whole_repair": len(DAMPINGS),
    }


@pytest.mark.parametrize("rule", ["fisher", "recover"])
def test_peak_memory_does_not_grow_with_the_images(benchmark, vit_b32, tmp_path, rule):
    write_folder(tmp_path / "corpus", "train", 4 * MEMORY_IMAGES, 0)
    peaks = {}

    def run(images: int) -> None:
        given = flags(vit_b32, tmp_path / "corpus", images, MEMORY_IMAGES)
        given |= {"output": tmp_path / f"{rule}-{images}", "mac_constraint": 0.5}
        words = [(f"--{name.replace('_', '-')}", str(value)) for name, value in given.items()]
        command = [
            sys.executable,
            "-m",
            f"compress.{rule}",
            *(word for pair in words for word in pair),
        ]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
        peaks[images] = usage.ru_maxrss / 2**20

    run(MEMORY_IMAGES)
    benchmark.pedantic(run, (4 * MEMORY_IMAGES,), rounds=1, iterations=1)
    few, many = (peaks[images] for images in (MEMORY_IMAGES, 4 * MEMORY_IMAGES))
    benchmark.extra_info |= {
        "images": [MEMORY_IMAGES, 4 * MEMORY_IMAGES],
        "layers": LAYERS,
        "peak_gib": [round(few, 2), round(many, 2)],
        "growth_percent": round(100 * (many / few - 1), 1),
    }
