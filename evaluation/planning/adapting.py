"""The choice of m for each query as a test for Learn then Test: what is searched for is its target.

The share of the expected results that candidates have to hold goes from 1/1,000 to 1. More
candidates are handed on at a larger share, so agreements can't fall with it, as they can't with m:
the same test along the same kind of sequence certifies it (`evaluation.planning.certifying`).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cascade.calibrated.calibration import Calibration
from cascade.calibrated.margins import Counts, candidates, membership, spread_over
from cascade.collecting.record import Plan
from cascade.collection import Collection
from cascade.measuring.finding import NEVER, Found
from cascade.searching.ranking import NOTHING
from evaluation.planning import telling
from evaluation.planning.asking import Asked
from evaluation.planning.calibrating import Learnt, rank_first
from evaluation.planning.certifying import lower_bound, smallest_m
from evaluation.planning.measuring import Evidence, reported, spending
from evaluation.planning.sample import Sample
from evaluation.planning.terms import PlanError, Terms

LEVELS = 1000


@dataclass(frozen=True)
class Levels:
    """What each share hands on for each of n queries.

    Attributes:
        needed: int64 [n, LEVELS]: candidates at the shares 1/LEVELS, 2/LEVELS, …, 1.
        positions: int64 [n, c]: the first stage's best.
    """

    needed: Counts
    positions: Tensor

    @classmethod
    def of(cls, sample: Sample, asked: Asked, k: int, learnt: Learnt) -> "Levels":
        """Those of some queries."""
        first = rank_first(sample, asked, learnt.depth)
        scores = first.scores.double().numpy()
        spread = spread_over(sample.contents, asked.embeddings[0])
        chances = membership(scores, spread, k, learnt.membership)
        shares = [level / LEVELS for level in range(1, LEVELS + 1)]
        needed = [candidates(chances, share, k) for share in shares]
        return cls(np.stack(needed, axis=1), first.positions)

    def found(self, found: Found) -> Found:
        """From which level on results are found that are found from so many candidates on."""
        at = np.full(found.at.shape, NEVER)
        for query, needed in enumerate(self.needed):
            levels = np.searchsorted(needed, found.at[query], side="left") + 1
            at[query] = np.where(levels <= LEVELS, levels, NEVER)
        return Found(at)

    def handed_on(self, level: int) -> Tensor:
        """Positions [n, c] that are handed on at a level; `NOTHING` where a query needs fewer."""
        limits = torch.from_numpy(self.needed[:, level - 1])
        columns = torch.arange(self.positions.shape[1])
        return self.positions.where(columns < limits[:, None], NOTHING)


def certified_calibration(
    collection: Collection, plan: Plan, learnt: Learnt, evidence: Evidence, terms: Terms
) -> tuple[Calibration, list[str]]:
    """Certify the choice of m for each query: what is written of it, and what is said.

    Args:
        collection: with two stages.
        plan: what was certified of a fixed m on the same queries.
        learnt: from other queries.
        evidence: what it is certified on.
        terms: of the plan.

    Raises:
        PlanError: it isn't certified.
    """
    asked = evidence.asked
    levels = Levels.of(evidence.sample, asked, plan.k, learnt)
    at = levels.found(evidence.found.found)
    level = smallest_m(at, plan.agreement, plan.confidence, 1, LEVELS, terms.p_value)
    agreements = at.agreements(LEVELS if level is None else level)
    bound = lower_bound(agreements, plan.confidence, terms.p_value)
    if level is None:
        raise PlanError(telling.refusal_of_auto(plan, learnt.depth, agreements, bound))
    handed_on = levels.handed_on(level)
    spendings = [spending(handed_on[:number], evidence.costs) for number in reported(len(asked))]
    needed = levels.needed[:, level - 1]
    said = telling.adaptive(plan, needed, learnt.depth, agreements, bound, spendings)
    calibration = Calibration(
        stages=tuple(stage.name for stage in collection.stages),
        k=plan.k,
        depth=learnt.depth,
        membership=learnt.membership,
        certainty=learnt.certainty,
        share=level / LEVELS,
        agreement=plan.agreement,
        confidence=plan.confidence,
        queries=learnt.queries,
        certified_on=len(asked),
        of=asked.of,
        encoded=plan.encoded,
        images=plan.images,
    )
    return calibration, said
