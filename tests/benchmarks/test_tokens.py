"""How fast a tower with fewer tokens really is, against what its MACs promise.

Each benchmark times the dense vision tower, alone, and the smaller one in turn, and puts the ratio,
which is what counts, into `extra_info`: speedup / MAC ratio of the whole tower.

    pytest tests/benchmarks/test_tokens.py --benchmark-only

Meant for a ViT-B/16 shape (random weights), batches of 32 and float32, the defaults;
`BENCH_LAYERS=4 TOKENS_BATCH=2 TOKENS_ROUNDS=1` tries it out (merging to half needs a few layers).
"""

import os
import statistics

import pytest
import torch
from compress.making.reduced import within

from compress.budgets.prices import Constraint
from compress.merge import schedules
from pruning_mechanism import Reduction, image_embeddings, macs, reduce
from tests.benchmarks.conftest import LAYERS, against

BATCH = int(os.environ.get("TOKENS_BATCH", "32"))
ROUNDS = int(os.environ.get("TOKENS_ROUNDS", "5"))
PATCHES = 14**2


def masked(share: float) -> Reduction:
    return Reduction(kept_patches=round((1 - share) * PATCHES), patch_rule="grid")


def merged(config, mac_constraint: float) -> Reduction:
    every = [Reduction(merged_per_layer=each) for each in schedules(config)]
    return within(config, every, Constraint("MAC", mac_constraint))


REDUCTIONS = {
    "mask 0.5": lambda config: masked(0.5),
    "mask 0.74": lambda config: masked(0.74),
    "resolution 160": lambda config: Reduction(image_size=160),
    "merging MAC 0.5": lambda config: merged(config, 0.5),
}
TARGETS = {"mask 0.5": 0.9, "mask 0.74": 0.9, "resolution 160": 0.9, "merging MAC 0.5": 0.75}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_realised_speedup_against_mac_ratio(benchmark, vit_b16, name):
    smaller = reduce(vit_b16, REDUCTIONS[name](vit_b16.config))

    @torch.inference_mode()
    def encode(model):
        return image_embeddings(model, pixels[model])

    pixels = {
        model: torch.randn(BATCH, 3, *2 * (model.config.vision_config.image_size,))
        for model in (vit_b16, smaller)
    }
    dense = against(benchmark, lambda: encode(vit_b16), lambda: encode(smaller), ROUNDS)
    speedup = statistics.median(dense) / benchmark.stats.stats.median
    ratio = macs(vit_b16).tower / macs(smaller).tower
    benchmark.extra_info |= {
        "threads": torch.get_num_threads(),
        "batch": BATCH,
        "layers": LAYERS,
        "mac_fraction": round(macs(smaller).fraction, 3),
        "speedup": round(speedup, 3),
        "mac_ratio": round(ratio, 3),
        "speedup_over_mac_ratio": round(speedup / ratio, 3),
        "target": TARGETS[name],
    }
