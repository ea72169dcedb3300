"""How well a latency table predicts the seconds of pruned towers, and what measuring it takes.

Each benchmark runs a tower whose predicted share of the dense seconds is given, in turn with the
dense tower, and puts predicted and measured seconds into `extra_info`; `drift` is what the dense
tower takes now over what it took when the table was made, so it tells a wrong table from a machine
that has changed its pace. LATENCY_RUNTIME and LATENCY_DTYPE name what towers run in.
"""

import os
import statistics

import numpy as np
import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from pruning_mechanism import Mask, load, prune
from pruning_mechanism.costs.latency import LatencyTable
from pruning_mechanism.deployed.seconds import measure
from pruning_mechanism.deployed.tower import Deployed
from pruning_mechanism.modeling.pruned_layers import activate_in_place
from pruning_mechanism.runtimes import DTYPES
from tests.benchmarks.conftest import LAYERS, against

BATCH = int(os.environ.get("LATENCY_BATCH", "16"))
RUNTIME = os.environ.get("LATENCY_RUNTIME", "torch")
DTYPE = next((kind for kind in DTYPES if kind == os.environ.get("LATENCY_DTYPE")), None)
REPETITIONS = int(os.environ.get("LATENCY_REPETITIONS", "7"))


@pytest.fixture(scope="module", params=["ViT-B/32", "clip-photos"])
def tower(request) -> CLIPModel:
    if request.param == "clip-photos":
        return load(request.getfixturevalue("shared") / "models" / "clip-photos")
    torch.manual_seed(0)
    text = {"num_hidden_layers": 1, "vocab_size": 100, "bos_token_id": 0, "eos_token_id": 1}
    vision = {"num_hidden_layers": LAYERS}
    model = CLIPModel(CLIPConfig(vision_config=vision, text_config=text)).eval()
    activate_in_place(model.vision_model)  # as `load` does
    return model


@pytest.fixture(scope="module")
def table(tower) -> LatencyTable:
    """As of towers that are read off the class token alone, which those pruned here are."""
    return measure(
        Deployed(tower, RUNTIME, DTYPE), BATCH, repetitions=REPETITIONS, class_token=True
    )


def uneven_mask(table: LatencyTable, share: float, multiple: int, seed: int) -> Mask:
    """A random mask of that predicted share: no two layers alike, two of them without heads."""
    dealer = np.random.default_rng(seed)
    most, layers = len(table.heads) - 1, table.layers
    heads = np.round(most * np.clip(share * dealer.uniform(0.5, 1.5, layers), 0, 1)).astype(int)
    heads[dealer.choice(layers, 2, replace=False)] = 0
    wish = dealer.uniform(0.2, 1.8, layers)
    for scale in np.linspace(2, 0, 401):
        neurons = table.widths[-1] * np.clip(scale * wish, 0, 1)
        neurons = (neurons // multiple * multiple).astype(int)
        if table.parts(heads, neurons) <= table.budget(share):
            break
    return Mask(
        torch.arange(most) < torch.from_numpy(heads)[:, None],
        torch.arange(table.widths[-1]) < torch.from_numpy(neurons)[:, None],
    )


@pytest.mark.parametrize("widths", ["preferred widths", "any width"])
@pytest.mark.parametrize("share", [0.75, 0.5, 0.35, 0.2])
def test_predicted_against_measured_seconds(benchmark, tower, table, share, widths):
    multiple = table.preferred_multiple if widths == "preferred widths" else 1
    mask = uneven_mask(table, share, multiple, seed=int(100 * share))
    vision = tower.config.vision_config
    pixels = torch.randn(BATCH, 3, vision.image_size, vision.image_size)
    whole = Deployed(tower, RUNTIME, DTYPE)
    encode, encode_smaller = whole.embed, whole.like(prune(tower, mask)).embed

    turns = against(
        benchmark, lambda: encode(pixels), lambda: encode_smaller(pixels), rounds=REPETITIONS
    )
    dense = statistics.median(turns) / BATCH
    measured = benchmark.stats.stats.median / BATCH
    predicted = table.tower(mask.heads.sum(1).tolist(), mask.neurons.sum(1).tolist())
    drift = dense / table.dense
    benchmark.extra_info |= {
        "runtime": RUNTIME,
        "dtype": table.conditions.dtype,
        "threads": torch.get_num_threads(),
        "batch": BATCH,
        "multiple": multiple,
        "noise": round(table.noise, 4),
        "predicted_ms": round(1000 * predicted, 3),
        "measured_ms": round(1000 * measured, 3),
        "predicted_over_measured": round(predicted / measured, 3),
        "drift": round(drift, 3),
        "predicted_share": round(predicted / table.dense, 3),
        "measured_share": round(measured / dense, 3),
        "predicted_over_measured_share": round(predicted / measured * drift, 3),
    }


def test_measuring_a_table(benchmark, tower):
    table = benchmark.pedantic(
        lambda: measure(Deployed(tower, RUNTIME, DTYPE), BATCH, repetitions=REPETITIONS),
        rounds=1,
        iterations=1,
    )
    benchmark.extra_info |= {
        "threads": table.conditions.threads,
        "batch": BATCH,
        "dense_ms": round(1000 * table.dense, 3),
        "outside_share": round(table.outside / table.dense, 4),
        "noise": round(table.noise, 4),
        "preferred_multiple": table.preferred_multiple,
        "penalty": {multiple: round(p, 3) for multiple, p in table.penalty.items()},
    }
