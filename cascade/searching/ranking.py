"""Scoring and ranking of embeddings, so that a search never depends on what else is searched.

Pure functions on tensors. The score of an image and a query is one computation on their two
embeddings alone, `scores_of`; matrix products only find the few images that it is worth computing
for. So each query gets, bit for bit, what it would get alone, at the cost of a matrix product.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NOTHING = -1
"""The position that stands where a ranking has no image."""

_SCORES_AT_ONCE = 1 << 24  # 64 MB of products of a block of queries and a block of images
_IMAGES_AT_ONCE = 1 << 17
_TERMS_AT_ONCE = 1 << 17  # 1 MB of float64 terms: they stay in the processor's cache
_RUN = 64
_SPARE = 8  # how many more images than wanted are scored at first
_ROUNDOFF = 2.0**-24  # of float32
_SQUARED = (1e-12, 1e18)  # lengths whose squares float32 holds
_LARGEST_PRODUCT = 1e37  # beyond it a sum in float32 may overflow on its way


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

    def without(self, gone: Collection[int], wanted: int) -> "Ranking":
        """The `wanted` best of the positions that aren't among those gone, or as many as all have.

        Each row has the same number of positions, and is long enough: `wanted` + `len(gone)`, or
        all that there are.
        """
        stays = ~torch.isin(self.positions, torch.tensor(list(gone)))
        columns = stays.byte().argsort(dim=1, descending=True, stable=True)
        columns = columns[:, : min(wanted, int(stays.sum(dim=1).min()))]
        return Ranking(self.positions.gather(1, columns), self.scores.gather(1, columns))


def rank_all(
    embeddings: Tensor, queries: Tensor, wanted: int, longest: float | None = None
) -> Ranking:
    """The images that score highest with each query; equal scores in order of positions.

    Args:
        embeddings: float32 [n, d], by position.
        queries: float32 [b, d].
        wanted: how many; there are at most n.
        longest: the largest length of the embeddings, if it is known already.

    Raises:
        ValueError: images and queries have different dimensions.
    """
    _check_dimensions(embeddings, queries)
    if longest is None:
        longest = length_of_longest(embeddings)
    wanted = min(wanted, len(embeddings))
    rows = max(1, _SCORES_AT_ONCE // max(1, min(len(embeddings), _IMAGES_AT_ONCE)))
    parts = [
        _rank_block(embeddings, queries[start : start + rows], wanted, longest, _SPARE)
        for start in range(0, max(1, len(queries)), rows)
    ]
    return Ranking.joined(parts)


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
        scores = scores_of(embeddings, slots.clamp(min=0), queries)
    return _ranked(candidates.where(readable, NOTHING), scores, candidates.shape[1])


def scores_of(embeddings: Tensor, rows: Tensor, queries: Tensor) -> Tensor:
    """The scores of some images with each query: dot products, float32 [b, c].

    The terms of float32 factors are exact in float64. They are added by halves, elementwise, in
    an order that depends on the dimension only, and the sum is rounded to float32 once.

    Args:
        embeddings: float32 [n, d].
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


def length_of_longest(embeddings: Tensor) -> float:
    """The largest Euclidean length among float32 embeddings [n, d], 0 if there are none.

    Never less than it is, and more by no more than a sum in float32 may be off.
    """
    if not embeddings.numel():
        return 0.0
    longest = float(torch.linalg.vector_norm(embeddings, dim=1).max())
    if _SQUARED[0] < longest < _SQUARED[1]:
        return longest * (1 + _error_bound(embeddings.shape[1]))
    return float(torch.linalg.vector_norm(embeddings, dim=1, dtype=torch.float64).max())


def _rank_block(
    embeddings: Tensor, queries: Tensor, wanted: int, longest: float, spare: int
) -> Ranking:
    """`rank_all` of queries whose products with a block of images fit in memory.

    A product in float32, in whatever order its terms are added, is off by at most γ_d·‖a‖·‖b‖
    (Higham, Accuracy and Stability of Numerical Algorithms, equation 3.5). At least `wanted` images
    reach the `wanted`-th best product, so whatever belongs to the result reaches it up to two such
    errors. If that may be more images than were taken, more are taken.
    """
    lengths = torch.linalg.vector_norm(queries, dim=1, dtype=torch.float64)
    bounded = bool((lengths * longest < _LARGEST_PRODUCT).all())  # False if one is NaN
    if wanted + spare >= len(embeddings) or not bounded:
        return _rank_every(embeddings, queries, wanted)
    products, positions = _largest_products(embeddings, queries, wanted + spare)
    positions, order = positions.sort(dim=1)
    scores = scores_of(embeddings, positions, queries)
    error = _error_bound(queries.shape[1]) * lengths * longest + torch.finfo(torch.float32).tiny
    products = products.double()
    sure = products[:, -1] < products[:, wanted - 1] - 2 * error
    # a product computed in less than float32, as torch can be told to, has no such bound
    sure &= ((products.gather(1, order) - scores).abs() <= error[:, None]).all(dim=1)
    found = _ranked(positions, scores, wanted)
    if sure.all():
        return found
    again = _rank_block(embeddings, queries[~sure], wanted, longest, 8 * spare)
    found.positions[~sure], found.scores[~sure] = again.positions, again.scores
    return found


def _rank_every(embeddings: Tensor, queries: Tensor, wanted: int) -> Ranking:
    """`rank_all` by the scores of all images."""
    every = torch.arange(len(embeddings))
    rows = max(1, _SCORES_AT_ONCE // max(1, len(embeddings)))
    parts = []
    for start in range(0, max(1, len(queries)), rows):
        block = queries[start : start + rows]
        positions = every.expand(len(block), -1)
        parts.append(_ranked(positions, scores_of(embeddings, positions, block), wanted))
    return Ranking.joined(parts)


def _largest_products(embeddings: Tensor, queries: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """The largest float32 products with each query [b, number], best first, and whose they are."""
    first, *others = embeddings.split(_IMAGES_AT_ONCE)
    best, positions = _top(queries @ first.T, min(number, len(first)))
    for place, block in enumerate(others, start=1):
        values, columns = _top(queries @ block.T, min(number, len(block)))
        best = torch.cat([best, values], dim=1)
        positions = torch.cat([positions, columns + place * _IMAGES_AT_ONCE], dim=1)
        best, columns = best.topk(min(number, best.shape[1]), dim=1)
        positions = positions.gather(1, columns)
    return best, positions


def _top(products: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """`topk` of each row, three times as fast where there are many columns.

    The `number` largest are in the `number` runs of columns whose largest are largest.
    """
    rows, columns = products.shape
    runs = columns // _RUN
    if runs <= 2 * number:
        return products.topk(number, dim=1)
    ends = products[:, : runs * _RUN].unflatten(1, (runs, _RUN)).amax(dim=2)
    chosen = ends.topk(number, dim=1).indices[:, :, None] * _RUN + torch.arange(_RUN)
    rest = torch.arange(runs * _RUN, columns).expand(rows, -1)
    chosen = torch.cat([chosen.flatten(1), rest], dim=1)
    values, places = products.gather(1, chosen).topk(number, dim=1)
    return values, chosen.gather(1, places)


def _error_bound(dimension: int) -> float:
    """γ_d of a sum of d products, and the rounding of the score that it is compared with."""
    terms = (dimension + 2) * _ROUNDOFF
    return terms / (1 - terms) if terms < 1 else float("inf")


def _sum_by_halves(terms: Tensor) -> Tensor:
    """The sums of the last dimension, always in the same order."""
    while (width := terms.shape[-1]) > 1:
        half = width // 2
        halved = terms[..., :half] + terms[..., width - half :]
        middle = terms[..., half : width - half]
        terms = torch.cat([halved, middle], dim=-1) if width % 2 else halved
    return terms.sum(dim=-1)


def _ranked(positions: Tensor, scores: Tensor, wanted: int) -> Ranking:
    """The `wanted` best columns of each row; of equal ones the first, `NOTHING` last."""
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
