"""Losses that pull a first stage's embeddings towards its teacher's.

Pure functions of embeddings. Only directions count, as in a search: all of them normalise.
"""

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy, kl_div, normalize

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


def contrastive_loss(own: Tensor, texts: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """How badly images and their captions find each other within a batch (CLIP, arXiv 2103.00020).

    The mean of two cross entropies, over the captions for each image and over the images for each
    caption.

    Args:
        own: the images' embeddings [b, e], b > 1.
        texts: one caption's embedding of each [b, e].
        temperature: that similarities are divided by.
    """
    logits = normalize(own, dim=1) @ normalize(texts, dim=1).T / temperature
    itself = torch.arange(len(own), device=own.device)
    return (cross_entropy(logits, itself) + cross_entropy(logits.T, itself)) / 2
