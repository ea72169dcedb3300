"""The choice of m for each query as a test for Learn then Test: what is searched for is its target.

The share of the expected results that candidates have to hold goes from 1/1,000 to 1. More
candidates are handed on at a larger share, so agreements can't fall with it, as they can't with m:
the same test along the same kind of sequence certifies it (`evaluation.planning.certifying`).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cascade.calibrated.margins import Counts, candidates, membership, spread_over
from cascade.measuring.finding import NEVER, Found
from cascade.searching.ranking import NOTHING
from evaluation.planning.asking import Asked
from evaluation.planning.calibrating import Learnt, rank_first
from evaluation.planning.sample import Sample

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
