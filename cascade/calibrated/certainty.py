"""The chance of what the last stage has ranked to be in the full tower's top k.

Its order among the candidates is known. An image that is j-th of them is in the top k of all unless
more than k - j images outrank it that no stage after the first has seen. Given their first scores,
those of the full tower are taken to be normal around a line; where that line lies for a query is
read off its own candidates, for which both scores are known. How many outrank it is then close to
a Poisson number. What that gives is calibrated on queries whose results are known (Platt scaling).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from cascade.calibrated.calibration import Certainty
from cascade.calibrated.margins import Values

_CLIP = 1e-6


@dataclass(frozen=True)
class Seen:
    """What two stages made of b queries.

    Attributes:
        first: the first stage's scores of its best images [b, c].
        spread: standard deviation of each query's first scores over the collection [b].
        unseen: bool [b, c], which of these images the last stage hasn't ranked.
        best: the last stage's best scores [b, j], descending.
        offset: of each query, the mean over candidates of what the last stage's score is above
            slope · the first stage's [b].
    """

    first: Values
    spread: Values
    unseen: npt.NDArray[np.bool_]
    best: Values
    offset: Values


def expected_chance(seen: Seen, k: int, model: Certainty) -> Values:
    """The chance of each of the last stage's best to be in the top k, as it follows: [b, j]."""
    deviation = model.noise * seen.spread[:, None]
    expected = model.slope * seen.first + seen.offset[:, None]
    outranking = np.empty(seen.best.shape)
    for column in range(seen.best.shape[1]):  # one by one: [b, j, c] would be large
        above = torch.from_numpy((expected - seen.best[:, column, None]) / deviation)
        outranking[:, column] = (torch.special.ndtr(above).numpy() * seen.unseen).sum(axis=1)
    left = np.arange(k, k - seen.best.shape[1], -1, dtype=np.float64)
    chances = torch.special.gammaincc(
        torch.from_numpy(np.maximum(left, 1)).expand(seen.best.shape), torch.from_numpy(outranking)
    )
    found: Values = np.where(left >= 1, chances.numpy(), 0.0)
    return found


def chance(seen: Seen, k: int, model: Certainty, whole: bool) -> Values:
    """The calibrated chance of each of the last stage's best to be in the top k: [b, j].

    Not rising from left to right. Where the last stage has ranked all images of the collection it
    is 1 for the first k.

    Args:
        seen: what the stages made of the queries.
        k: results.
        model: what was learnt.
        whole: whether `seen.first` holds all images of the collection.
    """
    known = np.clip(expected_chance(seen, k, model), _CLIP, 1 - _CLIP)
    logits = model.intercept + model.steepness * np.log(known / (1 - known))
    found: Values = np.minimum.accumulate(1 / (1 + np.exp(-logits)), axis=1)
    if whole:
        found[~seen.unseen.any(axis=1)] = 1.0
    found[:, k:] = 0.0
    return found
