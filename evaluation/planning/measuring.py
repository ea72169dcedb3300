"""What a number of candidates finds and costs, on the queries of a plan."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from cascade import lifetime_speedup
from cascade.measuring.finding import Found, best_of_sample, first_ranking, found_at
from cascade.measuring.sampling import loss_factor, results_of_sample
from cascade.searching.ranking import NOTHING
from evaluation.planning.asking import Asked
from evaluation.planning.certifying import PValue, lower_bound
from evaluation.planning.costs import Costs
from evaluation.planning.sample import Sample

_FEW_QUERIES = 100


@dataclass(frozen=True)
class Measured:
    """Queries answered by both stages.

    Attributes:
        found: from which m on each query's results are found.
        candidates: int64 [n, largest], the first stage's ranking.
        wanted: results of the sample that are looked for.
        factor: how many times as large the share missed of the collection's results can be, on
            average over samples.
    """

    found: Found
    candidates: Tensor
    wanted: int
    factor: float

    @property
    def largest(self) -> int:
        """The largest m that was measured."""
        return self.candidates.shape[1]


@dataclass(frozen=True)
class Spending:
    """What a number of queries, one after the other, make the last stage encode.

    Attributes:
        queries: how many.
        f: share of the collection that they bring up.
        nbytes: what the last stage's embeddings of these take on disk.
        speedup: lifetime speedup at that f; None: seconds weren't measured.
        encoder_speedup: of encoder-only seconds; None: they weren't.
    """

    queries: int
    f: float
    nbytes: int
    speedup: float | None
    encoder_speedup: float | None = None


@dataclass(frozen=True)
class Row:
    """What m candidates find and cost.

    Attributes:
        m: candidates.
        agreement: mean over the queries, in [0, 1].
        bound: what it is at least, with the confidence of the plan and for this m alone.
        spendings: after a few queries, and after all.
        cold: seconds of a query whose candidates are all encoded for it; None: not measured.
    """

    m: int
    agreement: float
    bound: float
    spendings: Sequence[Spending]
    cold: float | None


def measured(sample: Sample, asked: Asked, k: int, largest: int) -> Measured:
    """Look for the full tower's best images of the sample among the first stage's of all images.

    Args:
        sample: what the full tower has encoded.
        asked: the queries.
        k: results of the collection.
        largest: candidates that are looked at; fewer if there are no more images.

    Raises:
        ValueError: there are fewer than k images to find.
    """
    contents = sample.contents
    own = int(asked.own is not None)
    sampled, images = len(sample.positions) - own, sample.images - own
    wanted, factor = results_of_sample(k, sampled, images), loss_factor(k, sampled, images)
    to_first, to_last = asked.embeddings
    candidates = first_ranking(
        contents.rows, to_first, largest, contents.hidden, asked.own
    ).positions
    best = best_of_sample(sample.embeddings, sample.positions, to_last, wanted, asked.own)
    complete = best.positions.shape[1] == sampled
    return Measured(found_at(candidates, best, wanted, complete), candidates, wanted, factor)


@dataclass(frozen=True)
class Evidence:
    """All that a plan is made from.

    Attributes:
        sample: what the full tower has encoded.
        asked: the queries.
        found: what both stages answer to them.
        costs: what encoding takes.
    """

    sample: Sample
    asked: Asked
    found: Measured
    costs: Costs


def rows(
    measured: Measured,
    chosen: int | None,
    smallest: int,
    confidence: float,
    p_value: PValue,
    costs: Costs,
) -> list[Row]:
    """The chosen m beside others, from the smallest to the largest."""
    spaced = np.geomspace(smallest, measured.largest, 8).round().astype(int).tolist()
    every = sorted({*spaced, *([] if chosen is None else [chosen])})
    return [_row(measured, m, confidence, p_value, costs) for m in every]


def _row(measured: Measured, m: int, confidence: float, p_value: PValue, costs: Costs) -> Row:
    agreements = measured.found.agreements(m)
    queries = len(measured.candidates)
    return Row(
        m=m,
        agreement=float(agreements.mean()),
        bound=lower_bound(agreements, confidence, p_value),
        spendings=[
            spending(measured.candidates[:number, :m], costs) for number in reported(queries)
        ],
        cold=None if costs.seconds is None else m * costs.seconds[-1],
    )


def reported(queries: int) -> list[int]:
    """After how many queries costs are told: a few, and all."""
    return sorted({min(_FEW_QUERIES, queries), queries})


def spending(candidates: Tensor, costs: Costs) -> Spending:
    """What it costs to encode the candidates [n, c] of some queries, `NOTHING` among them."""
    brought_up = len(candidates[candidates != NOTHING].unique())
    f = brought_up / costs.images
    return Spending(
        queries=len(candidates),
        f=f,
        nbytes=brought_up * costs.nbytes,
        speedup=None if costs.seconds is None else lifetime_speedup(costs.seconds, f),
        encoder_speedup=None if costs.encoders is None else lifetime_speedup(costs.encoders, f),
    )
