"""How well a first stage finds what the full tower finds, among images that it isn't trained on."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

AT = 10


def agreement(own: Tensor, full: Tensor, k: int = AT) -> float:
    """Agreement@k among images, each one a query for the others, in percent.

    Queries are the full tower's embeddings: they lie where its texts do, and need no captions. The
    collection is embedded by the full tower, or by the first stage.

    Args:
        own: the first stage's embeddings [n, e].
        full: the full tower's [n, e].
        k: results of each query; with fewer other images than twice as many, half of these.
    """
    k = min(k, (len(full) - 1) // 2)
    queries = normalize(full.float(), dim=1)
    found = []
    for collection in (queries, normalize(own.float(), dim=1)):
        scores = queries @ collection.T
        scores.fill_diagonal_(-2)
        top = scores.topk(k).indices
        found.append(torch.zeros_like(scores, dtype=torch.bool).scatter(1, top, True))
    return 100 * float((found[0] & found[1]).sum()) / (k * len(full))
