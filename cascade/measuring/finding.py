"""From embeddings to the m at which each query's results are found: of a plan, or a migration.

The first stage ranks all images, the full tower those that it has encoded; both as a cascade does
it, bit for bit (`cascade.searching.ranking`).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cascade.searching.blocks import FirstRows
from cascade.searching.ranking import Ranking, rank_all

NEVER = np.iinfo(np.int64).max
_SPARE = 8  # how many more results are looked at for ties


@dataclass(frozen=True)
class Found:
    """At how many candidates the results of sampled queries are found.

    Attributes:
        at: int [n, j], ascending in each row: from which m on the cascade returns each of the j
            results that a query should have. `NEVER` where no m is large enough.
    """

    at: npt.NDArray[np.int64]

    def agreements(self, m: int) -> npt.NDArray[np.float64]:
        """The share of each query's results that m candidates hold: [n] in [0, 1]."""
        return np.asarray((self.at <= m).mean(axis=1), np.float64)


def found_at(candidates: Tensor, best: Ranking, wanted: int, complete: bool) -> Found:
    """From which m on a cascade returns the full tower's best images of each query.

    Those candidates that the full tower ranks first are returned, so an image is from the m on that
    holds it. Where images tie for the last place, the cascade prefers what the first stage ranks
    higher, and such an image counts only if it is that.

    Args:
        candidates: int64 [n, c], the first stage's ranking of all images: positions, best first.
        best: the full tower's ranking, at least `wanted` columns, with those that tie for the last
            place after these.
        wanted: how many of its best are to be found.
        complete: whether `best` holds all images that there are.
    """
    ranks = ranks_in(candidates, best.positions)
    tied = best.scores == best.scores[:, wanted - 1 : wanted]
    outside = tied.clone()
    outside[:, :wanted] = False
    earliest = ranks.where(outside, NEVER).amin(dim=1)
    if not complete:
        earliest = earliest.where(~outside[:, -1], 0)
    own = ranks[:, :wanted]
    counts = ~tied[:, :wanted] | (own < earliest[:, None])
    at = own.where(counts, NEVER)
    return Found(at.sort(dim=1).values.numpy())


def ranks_in(candidates: Tensor, positions: Tensor) -> Tensor:
    """Where positions [n, j] stand in each query's candidates [n, c], from 1; `NEVER`: nowhere."""
    ranks = torch.full_like(positions, NEVER)
    for column, asked in enumerate(positions.T):
        same = candidates == asked[:, None]
        ranks[:, column] = (same.byte().argmax(dim=1) + 1).where(same.any(dim=1), NEVER)
    return ranks


def first_ranking(
    rows: FirstRows, queries: Tensor, wanted: int, gone: Tensor, own: Tensor | None
) -> Ranking:
    """The first stage's exact ranking [n, wanted], or as many as there are.

    Args:
        rows: the first stage's embeddings of all images.
        queries: [n, d].
        wanted: how many.
        gone: int64, ascending: positions of images that were removed.
        own: positions [n] of images that are queries, each left out of its own results.
    """
    ranking = rows.ranked_exactly(queries, wanted + (own is not None), gone)
    return others(ranking, own, wanted)


def best_of_sample(
    embeddings: Tensor, positions: Tensor, queries: Tensor, wanted: int, own: Tensor | None
) -> Ranking:
    """The full tower's ranking of sampled images: `wanted` columns and a few more.

    Args:
        embeddings: of the sample [s, d].
        positions: int64 [s], ascending: where these images are in the collection.
        queries: [n, d].
        wanted: how many.
        own: as of `first_ranking`.
    """
    more = wanted + _SPARE
    ranking = rank_all(embeddings, queries, more + (own is not None))
    return others(Ranking(positions[ranking.positions], ranking.scores), own, more)


def others(ranking: Ranking, own: Tensor | None, wanted: int) -> Ranking:
    """A ranking without each query's `own` image, if there are such, cut to `wanted` columns."""
    if own is None:
        return Ranking(ranking.positions[:, :wanted], ranking.scores[:, :wanted])
    other = ranking.positions != own[:, None]
    number = min(wanted, int(other.sum(dim=1).min()))
    columns = other.byte().argsort(dim=1, descending=True, stable=True)[:, :number]
    return Ranking(ranking.positions.gather(1, columns), ranking.scores.gather(1, columns))
