"""Losses that pull a first stage's embeddings towards the full tower's; captions play no part.

Pure functions of embeddings. Only directions count, as in a search: all of them normalise.
"""

from torch import Tensor
from torch.nn.functional import cosine_similarity, kl_div, normalize

TEMPERATURE = 0.05
"""Of similarities in a batch. CLIP's own logit scale ends at 1/0.01, where one image takes all."""


def cosine_loss(own: Tensor, full: Tensor) -> Tensor:
    """1 − cos of each image's embedding to the full tower's, averaged.

    Args:
        own: [b, e].
        full: [b, e].
    """
    return 1 - cosine_similarity(own, full).mean()


def affinity_loss(own: Tensor, full: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """How far the similarities of images within a batch are from the full tower's.

    Affinity mimicking (TinyCLIP, arXiv 2309.12314, section 3.1) where there are images alone: the
    divergence of two distributions over the batch, the full tower's and the mixed one. The query is
    the full tower's embedding of each image in both, as in a search a text is embedded by the full
    tower's text tower; an image isn't compared with itself.

    Args:
        own: [b, e], b > 1.
        full: [b, e].
        temperature: that similarities are divided by.
    """
    own, full = normalize(own, dim=1), normalize(full, dim=1)
    wanted, found = (full @ full.T / temperature, full @ own.T / temperature)
    for similarities in (wanted, found):
        similarities.fill_diagonal_(-1e4)
    return kl_div(
        found.log_softmax(1), wanted.log_softmax(1), log_target=True, reduction="batchmean"
    )
