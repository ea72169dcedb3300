"""What alignment by few images claims, and what it is worth on images that it has not seen.

For an early exit and a tower that merges tokens, by n images drawn several times out of more: the
mean squared distance to the full tower's embeddings that leave-one-out claims, that of validation
images, and that of the projection as it was. Printed as a table, and in `extra_info`.

    FEW_IMAGES=8,32,128,1024 pytest tests/benchmarks/test_few_images.py --benchmark-only -s

`FEW_MODEL`, `FEW_CORPUS` and `FEW_DIRECTORY` name another checkpoint and corpus, `FEW_FEATURES` how
many random features there are, `FEW_DRAWS` how often images are drawn; `FEW_UNSEEN` of the
validation images are looked at.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from statistics import mean

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from compress.calibrating.calibration import Calibration
from compress.choices import DEMO_MODEL
from compress.solving.alignment import align_features, pooled_features
from corpora import load_corpus
from evaluation.reports.table import github_table
from evaluation.retrieval import agreement
from pruning_mechanism import Reduction, Tower, load, load_processor, reduce

MODEL = os.environ.get("FEW_MODEL", DEMO_MODEL)
CORPUS = os.environ.get("FEW_CORPUS", "scenes")
DIRECTORY = os.environ.get("FEW_DIRECTORY")
IMAGES = [int(each) for each in os.environ.get("FEW_IMAGES", "8,16,32,64,128,512").split(",")]
FEATURES = int(given) if (given := os.environ.get("FEW_FEATURES")) else None
DRAWS = int(os.environ.get("FEW_DRAWS", "4"))
UNSEEN = int(os.environ.get("FEW_UNSEEN", "500"))
REDUCTIONS = {
    "exit after layer 4": lambda _layers: Reduction(layers=4),
    "6 tokens merged in each layer": lambda layers: Reduction(merged_per_layer=(6,) * layers),
}
HEADERS = (
    "tower", "images", "taken", "claimed", "on others", "as it was", "agreement@10", "as it was",
)  # fmt: skip


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return load(MODEL)


@pytest.fixture(scope="module")
def images() -> Mapping[str, Calibration]:
    """What alignments are drawn from, and what they have not seen."""
    place, processor = DIRECTORY and Path(DIRECTORY), load_processor(MODEL)
    counts = {"train": max(IMAGES) + 512, "validation": UNSEEN}
    return {
        split: Calibration.draw(
            load_corpus(CORPUS, place, split, captions=False), count, 0, processor
        )
        for split, count in counts.items()
    }


@pytest.fixture(scope="module")
def targets(model, images) -> Mapping[str, Tensor]:
    tower = Tower.of(model)
    with torch.no_grad():
        return {
            split: torch.cat([tower.embeddings(each.pixels) for each in some.batches()])
            for split, some in images.items()
        }


def nearest(embeddings: Tensor, queries: Tensor) -> Tensor:
    return (normalize(queries) @ normalize(embeddings).T).topk(10, dim=1).indices


@torch.no_grad()
def judged(model: nn.Module, pooled: Tensor, wanted: Tensor) -> tuple[float, float]:
    """Mean squared distance and agreement@10, each image's embedding by the full tower a query."""
    projection = model.visual_projection
    given = projection(pooled[:, : getattr(projection, "in_features", None)])
    distance = (given - wanted).square().sum(1).mean().item()
    return distance, agreement(nearest(given, wanted), nearest(wanted, wanted))


@pytest.mark.parametrize("name", REDUCTIONS)
def test_alignment_by_few_images(benchmark, model, images, targets, name):
    layers, rows = len(Tower.of(model).layers), []
    reduced = reduce(model, REDUCTIONS[name](layers))
    pooled = {split: pooled_features(reduced, some) for split, some in images.items()}
    unseen = pooled["validation"], targets["validation"]
    as_it_was, agreed = judged(reduced, *unseen)

    def align(count: int, draw: int):
        generator = torch.Generator().manual_seed(draw)
        order = torch.randperm(len(pooled["train"]), generator=generator)[:count]
        given = pooled["train"][order], targets["train"][order]
        aligned, solved = align_features(reduced, *given, FEATURES, draw)
        return solved, *judged(aligned, *unseen)

    def measure():
        for count in IMAGES:
            found = [align(count, draw) for draw in range(DRAWS)]
            solved, distances, agreements = zip(*found, strict=True)
            taken = sum(not each.as_it_was for each in solved)
            claimed = mean(each.left_out for each in solved)
            rows.append((
                name, str(count), f"{taken} of {DRAWS}", f"{claimed:.2f}", f"{mean(distances):.2f}",
                f"{as_it_was:.2f}", f"{mean(agreements):.1f}", f"{agreed:.1f}",
            ))  # fmt: skip
            assert max(distances) <= 1.02 * as_it_was

    benchmark.pedantic(measure, rounds=1, iterations=1)
    benchmark.extra_info["rows"] = rows
    print("\n" + github_table(HEADERS, rows, (0,)))
