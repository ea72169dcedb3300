"""Scoring and ranking of embeddings, so that a search never depends on what else is searched.

Pure functions on tensors. The score of an image and a query is one computation on their two
embeddings alone, `scores_of`; matrix products (`cascade.searching.products`) only find the few
images that it is worth computing for. So each query gets, bit for bit, what it would get alone, at
the cost of a matrix product.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cascade.searching.products import (
    Contenders,
    contenders,
    is_bounded,
    length_of_longest,
    queries_at_once,
)

NOTHING = -1
"""The position that stands where a ranking has no image."""

_SCORES_AT_ONCE = 1 << 24
_TERMS_AT_ONCE = 1 << 17  # 1 MB of float64 terms: they stay in the processor's cache
_PAIRS_AT_ONCE = 1 << 12


@dataclass(frozen=True)
class Ranking:
    """What one stage answers to b queries: positions int64 [b, c] and scores float32 [b, c].

    Best first; `NOTHING`, which comes last, where an image couldn't be read.
    """

    positions: Tensor
    scores: Tensor

    @classmethod
    def joined(cls, parts: Sequence["Ranking"]) -> "Ranking":
        """The rankings of the queries of all parts, at least one."""
        return cls(
            torch.cat([part.positions for part in parts]),
            torch.cat([part.scores for part in parts]),
        )


def rank_all(
    embeddings: Tensor,
    queries: Tensor,
    wanted: int,
    longest: float | None = None,
    gone: Tensor | None = None,
) -> Ranking:
    """The images that score highest with each query; equal scores in order of positions.

    Args:
        embeddings: float32 or float16 [n, d], by position.
        queries: float32 [b, d].
        wanted: how many; fewer if fewer aren't gone.
        longest: the largest length of the embeddings, if it is known already.
        gone: int64 [g], ascending: different positions that are left out.

    Raises:
        ValueError: images and queries have different dimensions.
    """
    _check_dimensions(embeddings, queries)
    if longest is None:
        longest = length_of_longest(embeddings)
    if gone is None:
        gone = torch.empty(0, dtype=torch.int64)
    there = len(embeddings) - len(gone)
    wanted = min(wanted, there)
    if wanted in (0, there) or not is_bounded(queries, longest):
        return _rank_every(embeddings, queries, wanted, gone)
    rows = queries_at_once(len(embeddings))
    parts = [
        _rank_block(embeddings, queries[start : start + rows], wanted, longest, gone)
        for start in range(0, max(1, len(queries)), rows)
    ]
    return Ranking.joined(parts)


def rank_candidates(
    candidates: Tensor, embeddings: Tensor, slots: Tensor, queries: Tensor
) -> Ranking:
    """Candidates ordered by score; equal scores keep the order in which they were handed on.

    Args:
        candidates: int64 [b, c], positions.
        embeddings: float32 or float16 [s, d], all that the stage has encoded.
        slots: int64 [b, c], which of the embeddings is each candidate's; negative: none.
        queries: float32 [b, d].

    Raises:
        ValueError: images and queries have different dimensions.
    """
    readable = slots >= 0
    scores = torch.full(candidates.shape, float("-inf"))
    if readable.any():
        _check_dimensions(embeddings, queries)
        scores = scores_of(embeddings, slots.clamp(min=0), queries)
    return ranked(candidates.where(readable, NOTHING), scores, candidates.shape[1])


def scores_of(embeddings: Tensor, rows: Tensor, queries: Tensor) -> Tensor:
    """The scores of some images with each query: dot products, float32 [b, c].

    The terms of float32 factors are exact in float64. They are added by halves, elementwise, in
    an order that depends on the dimension only, and the sum is rounded to float32 once.

    Args:
        embeddings: float32 or float16 [n, d].
        rows: int64 [b, c], which of them are scored with each query.
        queries: float32 [b, d].
    """
    scores = torch.empty(rows.shape)
    dimension = max(1, queries.shape[1])
    columns = max(1, min(rows.shape[1], _TERMS_AT_ONCE // dimension))
    lines = max(1, _TERMS_AT_ONCE // (dimension * columns))
    exact = queries.double()
    for top in range(0, rows.shape[0], lines):
        block, factors = rows[top : top + lines], exact[top : top + lines, None]
        for left in range(0, rows.shape[1], columns):
            some = block[:, left : left + columns]
            terms = embeddings.index_select(0, some.flatten()).double()
            terms = terms.unflatten(0, some.shape).mul_(factors)
            scores[top : top + lines, left : left + columns] = _sum_by_halves(terms)
    return scores


def _rank_block(
    embeddings: Tensor, queries: Tensor, wanted: int, longest: float, gone: Tensor
) -> Ranking:
    """`rank_all` of queries whose products with a block of images fit in memory."""
    found = contenders(embeddings, queries, wanted, longest, gone)
    scores = _scores_of_pairs(embeddings, found, queries)
    chosen = _best_of_each(found, scores, len(queries), wanted)
    ranking = Ranking(found.positions[chosen], scores[chosen])
    doubts = found.doubted(scores)
    if doubts.any():
        doubted = found.queries[doubts].unique()
        exact = _rank_every(embeddings, queries[doubted], wanted, gone)
        ranking.positions[doubted], ranking.scores[doubted] = exact.positions, exact.scores
    return ranking


def _best_of_each(found: Contenders, scores: Tensor, queries: int, wanted: int) -> Tensor:
    """Which contenders are the `wanted` best of each query, int64 [b, wanted]."""
    # equal scores stay in order of positions, and those of a query in order of scores
    order = scores.argsort(descending=True, stable=True)
    if queries == 1:
        return order[None, :wanted]
    order = order[found.queries[order].argsort(stable=True)]
    counts = torch.bincount(found.queries, minlength=queries)
    starts = counts.cumsum(0) - counts
    return order[starts[:, None] + torch.arange(wanted)]


def _scores_of_pairs(embeddings: Tensor, found: Contenders, queries: Tensor) -> Tensor:
    """The scores of contenders, float32 [p]."""
    rows, asked = found.positions.split(_PAIRS_AT_ONCE), found.queries.split(_PAIRS_AT_ONCE)
    return torch.cat(
        [
            scores_of(embeddings, some[:, None], queries[of])[:, 0]
            for some, of in zip(rows, asked, strict=True)
        ]
    )


def _rank_every(embeddings: Tensor, queries: Tensor, wanted: int, gone: Tensor) -> Ranking:
    """`rank_all` by the scores of all images."""
    every = torch.arange(len(embeddings))
    hidden = every.index_fill(0, gone, NOTHING)
    rows = max(1, _SCORES_AT_ONCE // max(1, len(embeddings)))
    parts = []
    for start in range(0, max(1, len(queries)), rows):
        block = queries[start : start + rows]
        scores = scores_of(embeddings, every.expand(len(block), -1), block)
        parts.append(ranked(hidden.expand(len(block), -1), scores, wanted))
    return Ranking.joined(parts)


def _sum_by_halves(terms: Tensor) -> Tensor:
    """The sums of the last dimension, always in the same order."""
    while (width := terms.shape[-1]) > 1:
        half = width // 2
        halved = terms[..., :half] + terms[..., width - half :]
        middle = terms[..., half : width - half]
        terms = torch.cat([halved, middle], dim=-1) if width % 2 else halved
    return terms.sum(dim=-1)


def ranked(positions: Tensor, scores: Tensor, wanted: int) -> Ranking:
    """The `wanted` best columns of positions and scores [b, c]; of equal ones the first.

    `NOTHING` comes last, whatever its score.
    """
    scores = scores.nan_to_num(nan=float("-inf"), posinf=float("inf"), neginf=float("-inf"))
    keys = _order_keys(scores).where(positions != NOTHING, torch.iinfo(torch.int64).min)
    columns = keys.topk(min(wanted, scores.shape[1]), dim=1).indices
    return Ranking(positions.gather(1, columns), scores.gather(1, columns))


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
