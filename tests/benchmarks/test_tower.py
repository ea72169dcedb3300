"""How fast the pruned tower really is, and what a scoring pass costs.

Each benchmark times its contenders in turn and puts the ratio, which is what counts, into
`extra_info`; pytest-benchmark's own seconds are those of the contender under test.

    pytest tests/benchmarks/test_tower.py --benchmark-only

Meant for 12 layers and batches of 32, the defaults; `BENCH_LAYERS=2 TOWER_BATCH=4` tries it out.
The published masks are of 12 layers.
"""

import os
import statistics

import pytest
import torch
from transformers import CLIPModel

from compress.allocation.allocate import split_budget
from compress.budgets.prices import Prices
from compress.calibrating.calibration import Batch
from compress.calibrating.importance import Importance, mask_gradients
from compress.calibrating.objective import contrastive_loss, objective_named
from compress.fisher import fisher_information
from pruning_mechanism import Mask, Tower, image_embeddings, macs, prune
from pruning_mechanism.encoding import text_embeddings
from tests.benchmarks.conftest import LAYERS, against

BATCH = int(os.environ.get("TOWER_BATCH", "32"))


def mask_of(model: CLIPModel, name: str, shared) -> Mask:
    """A published mask, or one of random importances at the same constraint."""
    if name.startswith("published"):
        return Mask.load(shared() / "masks" / f"vit-b16-mac{name.split()[1]}.safetensors")
    generator = torch.Generator().manual_seed(0)
    importance = Importance(
        torch.rand(LAYERS, 12, generator=generator), torch.rand(LAYERS, 3072, generator=generator)
    )
    return split_budget(importance, Prices.in_macs(model.config, float(name.split()[1])))


@pytest.mark.parametrize("name", ["random 0.65", "random 0.40", "published 0.65", "published 0.40"])
def test_realised_speedup_against_mac_ratio(benchmark, vit_b16, name, request):
    if LAYERS != 12 and name.startswith("published"):
        pytest.skip("the published masks are of 12 layers")
    mask = mask_of(vit_b16, name, lambda: request.getfixturevalue("shared"))
    smaller, pixels = prune(vit_b16, mask), torch.randn(BATCH, 3, 224, 224)

    @torch.inference_mode()
    def encode(model):
        return image_embeddings(model, pixels)

    dense = against(benchmark, lambda: encode(vit_b16), lambda: encode(smaller))
    speedup = statistics.median(dense) / benchmark.stats.stats.median
    ratio = macs(vit_b16).tower / macs(smaller).tower
    benchmark.extra_info |= {
        "threads": torch.get_num_threads(),
        "speedup": round(speedup, 3),
        "mac_ratio": round(ratio, 3),
        "speedup_over_mac_ratio": round(speedup / ratio, 3),
    }


@pytest.mark.parametrize("objective", ["contrastive", "embedding"])
def test_scoring_pass_against_plain_forward_and_backward(benchmark, vit_b16, objective):
    tokens = torch.randint(2, 100, (BATCH, 8))
    tokens[:, -1] = 1
    batch = Batch(torch.randn(BATCH, 3, 224, 224), {"input_ids": tokens})

    def plain():
        """What a training step of the tower does, the optimiser left out."""
        with torch.no_grad():
            texts = text_embeddings(vit_b16, batch.tokens)
        images = image_embeddings(vit_b16, batch.pixels)
        contrastive_loss(images, texts, vit_b16.logit_scale.exp()).backward()
        vit_b16.zero_grad()

    losses = objective_named(objective, vit_b16)

    def score():
        return fisher_information(mask_gradients(Tower.of(vit_b16), [batch], losses))

    turns = against(benchmark, plain, score)
    ratio = benchmark.stats.stats.median / statistics.median(turns)
    benchmark.extra_info["scoring_over_forward_backward"] = round(ratio, 3)
