"""Recall@k and agreement@k, the two numbers that judge a search.

Plain functions on tensors: scores or result lists in, percent out. They stand between the
cascade and the report; `evaluation.metrics` offers the same functions as `evaluate.Metric`s.
Images are named by their position in the collection, 0 … N−1, here as everywhere in this module.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

MISSED = torch.iinfo(torch.int64).max
"""The rank of an image that a search didn't find at all: no k is large enough."""

_CHUNK_ELEMENTS = 1 << 24  # comparisons held at once: 16 MB of booleans, 64 MB of scores


def ranks(scores: Tensor, target: Tensor) -> Tensor:
    """Rank of each query's own image among all images, ties counted against the model.

    The rank is the number of *other* images whose score isn't below the target's, so 0 is best.
    An image that ties with the target stands before it, and so does one whose score is NaN; a
    target whose own score is NaN is `MISSED`.

    Args:
        scores: [Q, N], larger is better.
        target: int [Q], the position of each query's image.

    Returns:
        int64 [Q].

    Raises:
        ValueError: shapes don't fit, there is no query, or a target isn't one of the N images.
    """
    scores = torch.as_tensor(scores)
    if scores.ndim != 2:
        raise ValueError(f"scores must be [queries, images], got shape {tuple(scores.shape)}")
    queries, images = scores.shape
    target = _checked_target(target, queries, images).to(scores.device)
    rows = _rows_at_once(images)
    found = [
        _chunk_ranks(scores[start : start + rows], target[start : start + rows])
        for start in range(0, queries, rows)
    ]
    return torch.cat(found)


def ranks_from_embeddings(queries: Tensor, images: Tensor, target: Tensor) -> Tensor:
    """`ranks` of the dot products of two sets of embeddings, without the [Q, N] matrix.

    Args:
        queries: [Q, d], L2-normalised where cosine similarity is meant.
        images: [N, d].
        target: int [Q].

    Returns:
        int64 [Q].

    Raises:
        ValueError: as `ranks`, or the dimensions of the embeddings differ.
    """
    queries, images = torch.as_tensor(queries), torch.as_tensor(images)
    if queries.ndim != 2 or images.ndim != 2 or queries.shape[1] != images.shape[1]:
        raise ValueError(
            "queries and images must be [Q, d] and [N, d] with the same d, "
            f"got {tuple(queries.shape)} and {tuple(images.shape)}"
        )
    target = _checked_target(target, len(queries), len(images)).to(queries.device)
    rows = _rows_at_once(len(images))
    found = [
        _chunk_ranks(queries[start : start + rows] @ images.T, target[start : start + rows])
        for start in range(0, len(queries), rows)
    ]
    return torch.cat(found)


def ranks_from_results(results: Tensor, target: Tensor) -> Tensor:
    """Rank of each query's own image in an ordered result list, such as a cascade returns.

    Args:
        results: int [Q, K], positions of the returned images, best first, −1 = nothing returned.
        target: int [Q].

    Returns:
        int64 [Q], `MISSED` where the list doesn't hold the image.

    Raises:
        ValueError: shapes don't fit or there is no query.
    """
    results = torch.as_tensor(results)
    if results.ndim != 2:
        raise ValueError(f"results must be [queries, k], got shape {tuple(results.shape)}")
    target = _checked_target(target, len(results), None).to(results.device)
    found = results == target[:, None]
    place = found.to(torch.int8).argmax(dim=1) if results.shape[1] else target
    return torch.where(found.any(dim=1), place, MISSED)


def hits(ranks: Tensor, ks: Sequence[int]) -> Tensor:
    """Whether each query's image is in its top k, for each k: bool [Q, len(ks)].

    The columns are what a bootstrap resamples and what `recall` averages.

    Raises:
        ValueError: a k isn't a positive whole number.
    """
    for k in ks:
        if int(k) != k or k < 1:
            raise ValueError(f"k must be a positive whole number, got {k}")
    return ranks[:, None] < torch.tensor([int(k) for k in ks], device=ranks.device)


def recall(scores: Tensor, target: Tensor, ks: Sequence[int] = (1, 5, 10)) -> dict[int, float]:
    """Recall@k: share of queries whose image is in the top k, in percent.

    One relevant image per query, every caption a query, as CLIP_benchmark's
    `image_retrieval_recall@k` counts it, except that ties count against the model: a model that
    gives all images the same score finds nothing.

    Args:
        scores: [Q, N], larger is better.
        target: int [Q], the position of each query's image.
        ks: the k's.

    Returns:
        {k: percent}.

    Raises:
        ValueError: as `ranks` and `hits`.
    """
    return recall_of(ranks(scores, target), ks)


def recall_of(ranks: Tensor, ks: Sequence[int] = (1, 5, 10)) -> dict[int, float]:
    """Recall@k in percent from ranks [Q]; see `recall`.

    Raises:
        ValueError: there is no query, or a k isn't a positive whole number.
    """
    if len(ranks) == 0:
        raise ValueError("recall of no queries is not defined")
    share = 100 * hits(ranks, ks).cpu().double().mean(dim=0)
    return {int(k): value for k, value in zip(ks, share.tolist(), strict=True)}


def overlap(top_a: Tensor, top_b: Tensor) -> Tensor:
    """Share of a's results that b returns too, query by query.

    Rows are sets: their order doesn't matter and a repeated image counts once. −1 = nothing
    returned.

    Args:
        top_a: int [Q, k], what is to be found (the full tower's own results).
        top_b: int [Q, k'], what was returned.

    Returns:
        float64 [Q] in [0, 1].

    Raises:
        ValueError: shapes don't fit, or a query has no result in `top_a`.
    """
    top_a, top_b = torch.as_tensor(top_a), torch.as_tensor(top_b)
    if top_a.ndim != 2 or top_b.ndim != 2 or len(top_a) != len(top_b):
        raise ValueError(
            "top_a and top_b must be [queries, k] for the same queries, "
            f"got {tuple(top_a.shape)} and {tuple(top_b.shape)}"
        )
    rows = _rows_at_once(top_a.shape[1] * max(top_a.shape[1], top_b.shape[1]))
    shares = [
        _chunk_overlap(top_a[start : start + rows], top_b[start : start + rows])
        for start in range(0, len(top_a), rows)
    ]
    return torch.cat(shares) if shares else torch.zeros(0, dtype=torch.float64)


def agreement(top_a: Tensor, top_b: Tensor) -> float:
    """Agreement@k: share of a's own top-k results that b returns too, in percent.

    a is the full tower and b the cascade (or the first stage alone). No caption has to be
    true of any image, so it also judges a collection without ground truth.

    Args:
        top_a: int [Q, k], −1 = nothing returned.
        top_b: int [Q, k], −1 = nothing returned.

    Raises:
        ValueError: as `overlap`, or there is no query.
    """
    share = overlap(top_a, top_b)
    if len(share) == 0:
        raise ValueError("agreement over no queries is not defined")
    return 100 * share.mean().item()


def _rows_at_once(columns: int) -> int:
    return max(1, _CHUNK_ELEMENTS // max(1, columns))


def _checked_target(target: Tensor, queries: int, images: int | None) -> Tensor:
    target = torch.as_tensor(target)
    if queries == 0:
        raise ValueError("recall of no queries is not defined")
    if target.shape != (queries,):
        raise ValueError(
            f"target must be [{queries}], one image per query, got {tuple(target.shape)}"
        )
    if target.is_floating_point() or target.dtype == torch.bool:
        raise ValueError(f"target must hold positions of images (integers), got {target.dtype}")
    if target.min() < 0 or (images is not None and target.max() >= images):
        last = "" if images is None else f" to {images - 1}"
        raise ValueError(
            f"targets must be positions of images, 0{last}, "
            f"got {target.min().item()} to {target.max().item()}"
        )
    return target.long()


def _chunk_ranks(scores: Tensor, target: Tensor) -> Tensor:
    own = scores.gather(1, target[:, None])
    before = scores.shape[1] - 1 - (scores < own).sum(dim=1)  # all others that aren't below
    return torch.where(own[:, 0].isnan(), MISSED, before)


def _chunk_overlap(top_a: Tensor, top_b: Tensor) -> Tensor:
    equal = top_a[:, :, None] == top_a[:, None, :]
    repeated = equal.tril(diagonal=-1).any(dim=2)
    own = (top_a >= 0) & ~repeated
    if not own.any(dim=1).all():
        raise ValueError("a query has no result in top_a (all −1), so nothing can agree with it")
    shared = (top_a[:, :, None] == top_b[:, None, :]).any(dim=2) & own
    return shared.sum(dim=1).cpu().double() / own.sum(dim=1).cpu()
