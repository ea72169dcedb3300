"""What queries and a sample of a collection's images teach of how its two stages agree.

Of a sampled image both stages' scores are known. Whether it is in the full tower's top k of all N
images is known if all were sampled; otherwise it counts if it is among the sample's best
j = ⌈k·S/N⌉ of S, which stand for the best k' = j·N/S of all. Ranks and margins are taken relative
to k' then, and to k where the result is used.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cascade.calibrated.calibration import Certainty, Membership
from cascade.calibrated.certainty import Seen, expected_chance
from cascade.calibrated.margins import (
    Counts,
    Values,
    candidates,
    features,
    membership,
    spread_over,
)
from cascade.measuring.finding import best_of_sample, first_ranking
from cascade.measuring.sampling import results_of_sample
from cascade.searching.ranking import Ranking, scores_of
from evaluation.planning.asking import Asked
from evaluation.planning.sample import Sample

_WHOLE = 0.9995
"""The share of the expected results that the most candidates hold."""
_RIDGE = 1e-3  # keeps a fit finite where a feature separates; small beside any real number
_STEPS = 50
_CLOSE = 1e-9
_DOUBLINGS = 5
_CLIP = 1e-6
_LEAST_NOISE = 1e-6  # of a first stage that equals the full tower up to scale

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Learnt:
    """What was learnt.

    Attributes:
        membership: chances by first-stage rank and score.
        certainty: what is left uncertain of what the last stage has ranked.
        depth: the most candidates that are handed on.
        queries: how many it was learnt from.
    """

    membership: Membership
    certainty: Certainty
    depth: int
    queries: int


def learn(sample: Sample, asked: Asked, k: int, largest: int) -> Learnt:
    """Learn how the stages agree.

    Args:
        sample: what the full tower has encoded.
        asked: the queries, texts.
        k: results of the collection.
        largest: candidates that are looked at; fewer if there are no more images.

    Raises:
        ValueError: there are fewer than k images.
    """
    first = rank_first(sample, asked, largest)
    spread = spread_over(sample.contents, asked.embeddings[0])
    share = len(sample.positions) / sample.images
    wanted = results_of_sample(k, len(sample.positions), sample.images)
    known = _slots(sample, first)
    scores = first.scores.double().numpy()
    best = best_of_sample(sample.embeddings, sample.positions, asked.embeddings[1], wanted, None)
    inside = _among(first.positions, best.positions[:, :wanted])
    there = (known >= 0).numpy()
    x, z = features(scores, spread, wanted / share)
    ranks = np.broadcast_to(x, z.shape)[there]
    terms = np.stack([np.ones_like(ranks), ranks, ranks**2, z[there]], axis=1)
    model = Membership(*fitted(terms, inside[there]))
    seen = _columns(scores, spread, wanted / share, model)
    last = scores_of(sample.embeddings, known[:, :seen].clamp(min=0), asked.embeddings[1])
    pairs = _Pairs(scores[:, :seen], last.double().numpy(), spread, there[:, :seen])
    certainty = _certainty(pairs, inside[:, :seen], wanted, k)
    return Learnt(model, certainty, _columns(scores, spread, k, model), len(asked))


def rank_first(sample: Sample, asked: Asked, largest: int) -> Ranking:
    """The first stage's ranking of all images, [n, largest] or as many as there are."""
    contents = sample.contents
    return first_ranking(contents.rows, asked.embeddings[0], largest, contents.hidden, asked.own)


def fitted(terms: Values, inside: Flags) -> list[float]:
    """Weights [w] of a logistic regression: terms [n, w] whose first is 1, and outcomes [n].

    Maximum likelihood by Newton's method, with a ridge so small that it only decides where the
    likelihood has no maximum.
    """
    outcomes = inside.astype(np.float64)
    weights = np.zeros(terms.shape[1])
    for _ in range(_STEPS):
        chances = 1 / (1 + np.exp(-np.clip(terms @ weights, -30, 30)))
        slope = terms.T @ (chances - outcomes) + _RIDGE * weights
        curvature = (terms * (chances * (1 - chances))[:, None]).T @ terms
        step = np.linalg.solve(curvature + _RIDGE * np.eye(len(weights)), slope)
        weights = weights - step
        if np.abs(step).max() < _CLOSE:
            break
    return [float(weight) for weight in weights]


@dataclass(frozen=True)
class _Pairs:
    """Both stages' scores of the first stage's best images, [n, c]; `known`: where both are."""

    first: Values
    last: Values
    spread: Values
    known: Flags


def _certainty(pairs: _Pairs, inside: Flags, wanted: int, k: int) -> Certainty:
    """The line from first to last scores, and what makes calibrated chances of it."""
    count = pairs.known.sum(axis=1, keepdims=True).clip(min=1)

    def centred(scores: Values) -> Values:
        means = (scores * pairs.known).sum(axis=1, keepdims=True) / count
        return np.asarray((scores - means) * pairs.known)

    first, last = centred(pairs.first), centred(pairs.last)
    slope = float((first * last).sum() / max((first**2).sum(), _CLIP))
    scattered = (last - slope * first) / pairs.spread[:, None]
    freedom = max(1, int(pairs.known.sum()) - len(scattered))
    noise = max(float(np.sqrt((scattered**2).sum() / freedom)), _LEAST_NOISE)
    raw = Certainty(slope, noise, 0.0, 1.0)
    terms, outcomes = [], []
    for doubling in range(_DOUBLINGS):
        m = k * 2**doubling
        if m < pairs.first.shape[1]:
            chances, found = _replayed(pairs, inside, m, wanted, raw)
            terms.append(np.stack([np.ones_like(chances), np.log(chances / (1 - chances))], axis=1))
            outcomes.append(found)
    if not terms:  # the last stage ranks all that could be in the top k
        return raw
    intercept, steepness = fitted(np.concatenate(terms), np.concatenate(outcomes))
    return Certainty(slope, noise, intercept, max(0.0, steepness))


def _replayed(
    pairs: _Pairs, inside: Flags, m: int, wanted: int, model: Certainty
) -> tuple[Values, Flags]:
    """What a cascade with m candidates would say of its best, and whether it is so: [r] each."""
    handed_on = pairs.known.copy()
    handed_on[:, m:] = False
    scores = np.where(handed_on, pairs.last, -np.inf)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :wanted]
    best = np.take_along_axis(scores, order, axis=1)
    count = handed_on.sum(axis=1).clip(min=1)
    residuals = np.where(handed_on, pairs.last - model.slope * pairs.first, 0)
    unseen = pairs.known & ~handed_on
    seen = Seen(pairs.first, pairs.spread, unseen, best, residuals.sum(axis=1) / count)
    chances = np.clip(expected_chance(seen, wanted, model), _CLIP, 1 - _CLIP)
    there = np.isfinite(best)
    return chances[there], np.take_along_axis(inside, order, axis=1)[there]


def _columns(scores: Values, spread: Values, k: float, model: Membership) -> int:
    """How many columns hold all results but a few, for each query."""
    chances = membership(scores, spread, k, model)
    most: Counts = candidates(chances, _WHOLE, max(1, round(k)))
    return int(most.max())


def _slots(sample: Sample, first: Ranking) -> Tensor:
    """Which of the sampled images each of the first stage's is, int64 [n, c]; -1: none."""
    slots = torch.full((sample.contents.rows.count,), -1, dtype=torch.int64)
    slots[sample.positions] = torch.arange(len(sample.positions))
    return slots[first.positions]


def _among(positions: Tensor, best: Tensor) -> Flags:
    """Which of the positions [n, c] are among the best [n, j]."""
    inside = torch.zeros(positions.shape, dtype=torch.bool)
    for column in best.T:
        inside |= positions == column[:, None]
    return inside.numpy()
