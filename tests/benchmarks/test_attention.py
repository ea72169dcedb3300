"""How much the implementation of attention matters, and which one a measurement chooses.

Each benchmark measures the implementations in turn and puts their seconds an image into
`extra_info`, beside those of one that was chosen; the benchmark's own seconds are what choosing
takes.

    pytest tests/benchmarks/test_attention.py --benchmark-only

Meant for batches of 32, the default; `BENCH_LAYERS=2 ATTENTION_BATCH=2 ATTENTION_REPETITIONS=1`
tries it out.
"""

import os

import pytest
import torch

from compress.options import DEMO_MODEL
from pruning_mechanism import Mask, Reduction, load, prune, reduce
from pruning_mechanism.attention import fastest_attention

BATCH = int(os.environ.get("ATTENTION_BATCH", "32"))
REPETITIONS = int(os.environ.get("ATTENTION_REPETITIONS", "7"))


def few_units(model):
    """Layers of 1 to 6 heads and 128 neurons, as the cheapest first stages have them."""
    dense = Mask.dense(model.config)
    layers, heads = dense.heads.shape
    kept = 1 + torch.arange(layers)[:, None] % 6
    return prune(
        model,
        Mask(
            torch.arange(heads) < kept,
            (torch.arange(dense.neurons.shape[1]) < 128).repeat(layers, 1),
        ),
    )


def merging(model):
    return reduce(
        model, Reduction(merged_per_layer=(4,) * model.config.vision_config.num_hidden_layers)
    )


@pytest.mark.parametrize(
    "made", [lambda model: model, few_units, merging], ids=["dense", "few units", "merging"]
)
@pytest.mark.parametrize("tower", ["demo", "ViT-B/16"])
def test_choosing_the_fastest_attention(benchmark, request, tower, made):
    dense = load(DEMO_MODEL) if tower == "demo" else request.getfixturevalue("vit_b16")
    model = made(dense)
    choice = benchmark.pedantic(
        fastest_attention, (model, BATCH, REPETITIONS), rounds=1, iterations=1
    )
    benchmark.extra_info |= {
        "threads": torch.get_num_threads(),
        "batch": BATCH,
        "chosen": choice.name,
        "ms_an_image": {name: round(1000 * each, 3) for name, each in choice.seconds.items()},
        "slowest_over_fastest": round(
            max(choice.seconds.values()) / choice.seconds[choice.name], 3
        ),
    }
