"""From a first stage's scores to how many candidates each query needs.

Pure functions on arrays. What a query gets depends on its own scores alone, and not on what else
is searched with it.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cascade.calibrated.calibration import Calibration, Membership
from cascade.calibrated.cutoff import Score
from cascade.searching.catalogue import Contents
from cascade.searching.ranking import NOTHING, Ranking, scores_of

Values = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

_LARGEST_LOGIT = 30.0
_LEAST_SPREAD = 1e-12
_SUM = 1e-12  # what a sum of shares may be off


@dataclass(frozen=True)
class Margins:
    """What the first stage's scores of b queries say.

    Attributes:
        scores: of the best images, float64 [b, c], descending.
        spread: standard deviation of each query's scores over the collection [b].
        chances: of each of these images to be in the full tower's top k [b, c], not rising.
    """

    scores: Values
    spread: Values
    chances: Values

    @classmethod
    def of(cls, scores: Tensor, spread: Values, calibration: Calibration) -> "Margins":
        """Those of first-stage scores [b, c]."""
        best = scores.double().numpy()
        chances = membership(best, spread, calibration.k, calibration.membership)
        return cls(best, spread, chances)


def spread_over(contents: Contents, queries: Tensor) -> Values:
    """Standard deviation of each query's scores over a collection; see `distribution_over`."""
    return distribution_over(contents, queries)[1]


def distribution_over(contents: Contents, queries: Tensor) -> tuple[Values, Values]:
    """Mean and standard deviation of each query's scores over a collection, float64 [b] each.

    Over 256 images that are evenly spaced in it, or all if there are no more: the same images for
    all queries, and exact scores, so that it depends on nothing else.

    Args:
        contents: of the collection, at least one image.
        queries: float32 [b, d].
    """
    spaced = contents.spaced
    rows = torch.arange(len(spaced)).expand(len(queries), -1)
    scores = scores_of(spaced, rows, queries).double().numpy()
    return scores.mean(axis=1), np.maximum(scores.std(axis=1), _LEAST_SPREAD)


def best_scores(ranking: Ranking) -> Values:
    """The best score of each query, float64 [b]; -inf where nothing was ranked."""
    found = ranking.positions[:, 0] != NOTHING
    return np.asarray(ranking.scores[:, 0].where(found, float("-inf")).double().numpy())


def matching_scores(score: Score, best: Values, contents: Contents, queries: Tensor) -> Values:
    """What says whether anything matches, as `Score` names it: [b].

    Args:
        score: which one.
        best: the last stage's best score of each query [b]; -inf: it has ranked nothing.
        contents: of the collection.
        queries: float32 [b, d], of the first stage.
    """
    if score == "best":
        return best
    mean, spread = distribution_over(contents, queries)
    return np.asarray((best - mean) / spread)


def features(scores: Values, spread: Values, k: float) -> tuple[Values, Values]:
    """What chances follow from, as `Membership` names them: x [c] of ranks, z [b, c] of scores.

    Args:
        scores: [b, c], descending: the best images of each query.
        spread: [b].
        k: results that are looked for; if they aren't those of the whole collection no whole
            number.
    """
    columns = scores.shape[1]
    last = scores[:, min(max(round(k), 1), columns) - 1, None]
    return np.log(np.arange(1, columns + 1) / k), (scores - last) / spread[:, None]


def membership(scores: Values, spread: Values, k: float, model: Membership) -> Values:
    """Each image's chance to be in the full tower's top k, [b, c], not rising from left to right.

    Arguments as of `features`.
    """
    x, z = features(scores, spread, k)
    logits = model.intercept + model.log_rank * x + model.log_rank_squared * x**2 + model.margin * z
    chances: Values = 1 / (1 + np.exp(-np.clip(logits, -_LARGEST_LOGIT, _LARGEST_LOGIT)))
    return np.minimum.accumulate(chances, axis=1)


def candidates(chances: Values, share: float, k: int) -> Counts:
    """The fewest candidates of each query that are expected to hold a share of the results: [b].

    At least k, and at most as many as there are chances. A larger share never gives fewer.

    Args:
        chances: [b, c], as of `membership`.
        share: in [0, 1].
        k: results wanted.
    """
    columns = chances.shape[1]
    sums = np.cumsum(chances, axis=1)
    short = sums < (share - _SUM) * sums[:, -1:]
    wanted = np.where(share >= 1, columns, short.sum(axis=1) + 1)
    found: Counts = np.clip(wanted, min(k, columns), columns).astype(np.int64)
    return found
