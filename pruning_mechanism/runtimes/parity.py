"""How close a runtime's embeddings are to those that torch computes in float32."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize
from transformers import PreTrainedModel

from pruning_mechanism.costs.conditions import noise_pixels
from pruning_mechanism.encoding import image_embeddings

SAME = 1e-4
"""The largest difference, in an entry of a normalised embedding, that float32 may make: programs
add up in other orders. Typical are 1e-6."""
KEEPS = 0.999
"""The mean cosine on calibration images from which a type counts as keeping embeddings."""
BATCHES = (1, 2, 5)
"""Sizes that noise is embedded in: a graph must take any."""

Embed = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Parity:
    """Embeddings of some images compared with torch's.

    `difference` is the largest of any entry after normalising; `least` and `cosine` are the least
    and the mean cosine.
    """

    images: int
    difference: float
    least: float
    cosine: float

    def __str__(self) -> str:
        return (
            f"{self.images} images, largest difference {self.difference:.2g}, "
            f"cosine {self.cosine:.6f} (least {self.least:.6f})"
        )


def compared(found: Tensor, wanted: Tensor) -> Parity:
    """The parity of embeddings [n, d]; what isn't finite differs infinitely."""
    ours, theirs = normalize(found.double(), dim=-1), normalize(wanted.double(), dim=-1)
    cosines = cosine_similarity(ours, theirs, dim=-1)
    if not found.isfinite().all() or not len(found):
        return Parity(len(found), float("inf"), -1.0, -1.0)
    difference = (ours - theirs).abs().max().item()
    return Parity(len(found), difference, cosines.min().item(), cosines.mean().item())


@torch.inference_mode()
def noise_parity(model: PreTrainedModel, embed: Embed) -> Parity:
    """Parity on noise, in batches of several sizes.

    Args:
        model: gives torch's embeddings, in float32.
        embed: the runtime's.
    """
    noise = noise_pixels(model, sum(BATCHES))
    parts = noise.split(list(BATCHES))
    found = torch.cat([torch.as_tensor(embed(part)) for part in parts])
    wanted = torch.cat([image_embeddings(model, part) for part in parts])
    return compared(found, wanted)


def batches(pixels: Tensor, size: int = 16) -> Iterator[Tensor]:
    """Images in batches."""
    yield from pixels.split(size)


@torch.inference_mode()
def embedded(embed: Embed, pixels: Tensor) -> Tensor:
    """What a runtime makes of many images: [n, d]."""
    return torch.cat([torch.as_tensor(embed(batch)) for batch in batches(pixels)])
