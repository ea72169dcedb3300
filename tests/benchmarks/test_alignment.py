"""What alignment costs, against one forward pass of the last stage over the images used.

Each benchmark times the plain pass, the images' decoding included on both sides, and the aligned
rule in turn; ratios go into `extra_info`. An early exit's own pass is the last stage's. Any other
first stage passes over the images itself, which is part of `over_last_stage` and not of the solve.

    ALIGN_IMAGES=4096 pytest tests/benchmarks/test_alignment.py --benchmark-only

Meant for that number, the rules' default, on the embedded demo checkpoint; the solve doesn't get
cheaper with the images, so fewer flatter nothing. The default is 512; `ALIGN_IMAGES=32
ALIGN_ROUNDS=1` tries it out.
"""

import os
import statistics
from dataclasses import replace

import pytest
import torch
from compress.making.dense import Ledger
from compress.making.reduced import make_reduced

from compress import early_exit
from compress.early_exit import EarlyExitOptions
from compress.making.source import Source, open_source
from compress.solving.alignment import align_features, pooled_features
from pruning_mechanism import Reduction, Tower, reduce
from tests.benchmarks.conftest import against, seconds
from tests.compress.losses import align_tower

IMAGES = int(os.environ.get("ALIGN_IMAGES", "512"))
ROUNDS = int(os.environ.get("ALIGN_ROUNDS", "3"))
OPTIONS = EarlyExitOptions(samples=IMAGES, layer=(4,))
MERGED = 6
"""Tokens merged in each layer: about half of the MACs."""


@pytest.fixture(scope="module")
def source() -> Source:
    return open_source(OPTIONS)


@torch.no_grad()
def plain_pass(source: Source, tower: Tower | None = None) -> None:
    for batch in source.calibration.batches():
        (tower or source.target).embeddings(batch.pixels)


@torch.no_grad()
def seconds_of_solve(source: Source, model) -> float:
    pooled, targets = pooled_features(model, source.calibration), source.targets()
    return seconds(lambda: align_features(model, pooled, targets))


def test_an_early_exit_with_its_alignment(benchmark, source):
    rule = early_exit.rule(OPTIONS)

    def exit_and_align():
        fresh = replace(source, ledger=Ledger())
        return make_reduced(fresh, rule, rule.settings[0], OPTIONS)

    turns = against(benchmark, lambda: plain_pass(source), exit_and_align, ROUNDS)
    plain = statistics.median(turns)
    solve = seconds_of_solve(source, exit_and_align().step.model)
    benchmark.extra_info |= {
        "threads": torch.get_num_threads(),
        "images": IMAGES,
        "last_stage_seconds": round(plain, 3),
        "solve_over_last_stage": round(solve / plain, 3),
        "over_last_stage": round(benchmark.stats.stats.median / plain, 3),
    }


def test_alignment_of_a_merged_tower(benchmark, source):
    layers = source.model.config.vision_config.num_hidden_layers
    merged = reduce(source.model, Reduction(merged_per_layer=(MERGED,) * layers))

    def align():
        return align_tower(source.target, merged, source.calibration)

    def both_passes():
        plain_pass(source)
        plain_pass(source, Tower.of(merged))

    turns = against(benchmark, both_passes, align, ROUNDS)
    both, plain = statistics.median(turns), seconds(lambda: plain_pass(source))
    benchmark.extra_info |= {
        "threads": torch.get_num_threads(),
        "images": IMAGES,
        "last_stage_seconds": round(plain, 3),
        "solve_over_last_stage": round(seconds_of_solve(source, merged) / plain, 3),
        "over_both_passes": round(benchmark.stats.stats.median / both, 3),
        "over_last_stage": round(benchmark.stats.stats.median / plain, 3),
    }
