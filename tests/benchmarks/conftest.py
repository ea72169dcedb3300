"""What benchmarks share: contenders in turn, and a ViT-B/16 with random weights.

`BENCH_LAYERS` makes a shallower tower, to try the benchmarks out.
"""

import os

import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from pruning_mechanism.costs.clock import seconds_of
from pruning_mechanism.costs.latency_measurement import settle_memory
from pruning_mechanism.modeling.pruned_layers import activate_in_place

LAYERS = int(os.environ.get("BENCH_LAYERS", "12"))


@pytest.fixture(scope="session")
def vit_b16() -> CLIPModel:
    """A CLIP with a ViT-B/16-shaped vision tower, as `load` gives it, so no speedup is owed to it.

    Its text tower has one layer.
    """
    torch.manual_seed(0)
    text = {"num_hidden_layers": 1, "vocab_size": 100, "bos_token_id": 0, "eos_token_id": 1}
    vision = {"patch_size": 16, "num_hidden_layers": LAYERS}
    model = CLIPModel(CLIPConfig(vision_config=vision, text_config=text)).eval()
    activate_in_place(model.vision_model)
    settle_memory()
    return model


def seconds(work) -> float:
    return seconds_of(work, torch.device("cpu"))


def against(benchmark, baseline, work, rounds: int = 3) -> list[float]:
    """Seconds of `baseline`, run before every round of `work`, which is what is benchmarked."""
    turns = []
    baseline(), work()
    benchmark.pedantic(
        work, setup=lambda: turns.append(seconds(baseline)), rounds=rounds, iterations=1
    )
    return turns
