"""What a smaller tower loses on images or texts, and its alignment by these, for tests."""

import torch
from torch import nn
from torch.nn.functional import cosine_similarity

from compress.calibrating.calibration import Calibration
from compress.solving.alignment import align_features, pooled_features
from pruning_mechanism import Tower
from pruning_mechanism.ridge import Ridge


@torch.no_grad()
def embedding_loss(dense: Tower, smaller: Tower, calibration: Calibration) -> float:
    """Mean 1 - cos of what two towers make of the same images or texts."""
    distances = []
    for batch in calibration.batches():
        inputs = batch.inputs(dense.kind)
        distances.append(
            1 - cosine_similarity(dense.embeddings(inputs), smaller.embeddings(inputs))
        )
    return torch.cat(distances).mean().item()


@torch.no_grad()
def align_tower(
    full: Tower, model: nn.Module, images: Calibration, features: int | None = None, seed: int = 0
) -> tuple[nn.Module, Ridge]:
    """A model aligned to a full tower by the same images."""
    pooled = pooled_features(model, images)
    wanted = [full.embeddings(batch.pixels).float().cpu() for batch in images.batches()]
    return align_features(model, pooled, torch.cat(wanted), features, seed)
