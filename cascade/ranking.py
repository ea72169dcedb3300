"""Scoring and ranking of embeddings, so that a search never depends on what else is searched.

Pure functions on tensors. The cascade calls them for many queries at once; each query gets, bit
for bit, what it would get alone.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

NOTHING = -1
"""The position that stands where a ranking has no image."""


@dataclass(frozen=True)
class Ranking:
    """What one stage says to b queries: positions int64 [b, c] and scores float32 [b, c].

    Best first; `NOTHING`, which comes last, where an image couldn't be read.
    """

    positions: Tensor
    scores: Tensor


def rank_all(embeddings: Tensor, queries: Tensor, wanted: int) -> Ranking:
    """The images that score highest with each query; equal scores in order of positions.

    Args:
        embeddings: float32 [n, d], by position.
        queries: float32 [b, d].
        wanted: how many, at most n are given.

    Raises:
        ValueError: images and queries have different dimensions.
    """
    _check_dimensions(embeddings, queries)
    scores = torch.empty(len(queries), len(embeddings))
    for query, row in zip(queries, scores, strict=True):
        torch.mv(embeddings, query.clone(), out=row)
    return _ranked(None, scores, wanted)


def rank_candidates(
    candidates: Tensor, embeddings: Tensor, slots: Tensor, queries: Tensor
) -> Ranking:
    """Candidates ordered by score; equal scores keep the order in which they were handed on.

    Args:
        candidates: int64 [b, c], positions.
        embeddings: float32 [s, d], all that the stage has encoded.
        slots: int64 [b, c], which of the embeddings is each candidate's; negative: none.
        queries: float32 [b, d].

    Raises:
        ValueError: images and queries have different dimensions.
    """
    readable = slots >= 0
    scores = torch.full(candidates.shape, float("-inf"))
    if readable.any():
        _check_dimensions(embeddings, queries)
        for query, row, slot in zip(queries, scores, slots.clamp(min=0), strict=True):
            torch.mv(embeddings[slot], query.clone(), out=row)
    return _ranked(candidates.where(readable, NOTHING), scores, candidates.shape[1])


def _ranked(positions: Tensor | None, scores: Tensor, wanted: int) -> Ranking:
    """The `wanted` best columns of each row; positions are those columns if not given."""
    scores = scores.nan_to_num(nan=float("-inf"), posinf=float("inf"), neginf=float("-inf"))
    keys = _order_keys(scores)
    if positions is not None:
        keys = keys.where(positions != NOTHING, torch.iinfo(torch.int64).min)
    columns = keys.topk(min(wanted, scores.shape[1]), dim=1).indices
    found = columns if positions is None else positions.gather(1, columns)
    return Ranking(found, scores.gather(1, columns))


def _order_keys(scores: Tensor) -> Tensor:
    """Distinct int64 [b, c] that order as the scores [b, c] do, and equal scores first to last.

    The bits of a float32, read as a sign and a magnitude, order as the numbers do; the column
    goes into the lower half. `topk` alone leaves the order of equal scores open.
    """
    bits = (scores + 0.0).view(torch.int32)  # adding 0 makes −0 the same as 0
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).long()
    columns = scores.shape[1]
    return ordered * 2**32 + torch.arange(columns - 1, -1, -1)


def _check_dimensions(embeddings: Tensor, queries: Tensor) -> None:
    if embeddings.shape[1] != queries.shape[1]:
        raise ValueError(
            f"a stage encodes images to {embeddings.shape[1]} dimensions, "
            f"but queries to {queries.shape[1]}"
        )
