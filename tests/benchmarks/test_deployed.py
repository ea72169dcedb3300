"""How much faster MobileCLIP's image towers are once their branches for training are merged.

    OMP_NUM_THREADS=1 python -m pytest tests/benchmarks/test_deployed.py --benchmark-only

Random weights, which cost the same as trained ones. Each benchmark times both forms in turn;
`extra_info` has the ratio, and both counts of parameters in millions.
"""

import os
import statistics

import open_clip
import pytest
import timm
import torch

from tests.benchmarks.conftest import against

ROUNDS = 9
BATCH = int(os.environ.get("DEPLOYED_BATCH", "1"))
NAMES = "MobileCLIP2-S0", "MobileCLIP-S1", "MobileCLIP-S2", "MobileCLIP2-S3"


@pytest.mark.parametrize("name", NAMES)
def test_merged_branches_against_those_of_training(benchmark, name):
    asked = open_clip.get_model_config(name)
    entries, outputs = asked["vision_cfg"], asked["embed_dim"]
    backbone = entries["timm_model_name"]
    training = timm.create_model(backbone, num_classes=outputs).eval()
    deployed = timm.utils.reparameterize_model(training)
    pixels = torch.randn(BATCH, 3, entries["image_size"], entries["image_size"])

    @torch.inference_mode()
    def encode(model):
        return model(pixels)

    before = against(benchmark, lambda: encode(training), lambda: encode(deployed), ROUNDS)
    median = statistics.median(before)
    benchmark.extra_info |= {
        "threads": torch.get_num_threads(),
        "batch": BATCH,
        "ms_before": round(1e3 * median, 1),
        "ms_after": round(1e3 * benchmark.stats.stats.median, 1),
        "speedup": round(median / benchmark.stats.stats.median, 2),
        "parameters": [
            round(sum(each.numel() for each in model.parameters()) / 1e6, 1)
            for model in (training, deployed)
        ],
    }
