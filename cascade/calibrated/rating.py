"""Between a cascade's rankings and what is calibrated: tensors in, m and chances out."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cascade.calibrated.calibration import Calibration
from cascade.calibrated.certainty import Seen, chance
from cascade.calibrated.margins import Margins, Values, candidates, spread_over
from cascade.searching.catalogue import Contents
from cascade.searching.embeddings import Held
from cascade.searching.ranking import NOTHING, Ranking, rank_candidates


@dataclass(frozen=True)
class Rated:
    """The first stage's ranking of b queries, and what its scores say.

    Attributes:
        calibration: what says it.
        ranking: of the first stage [b, c].
        margins: of all columns of it.
        whole: whether it ranks all images of the collection.
    """

    calibration: Calibration
    ranking: Ranking
    margins: Margins
    whole: bool

    @classmethod
    def of(
        cls, calibration: Calibration, contents: Contents, ranking: Ranking, queries: Tensor
    ) -> "Rated":
        """Rate the first stage's ranking [b, c] of queries [b, d]."""
        margins = Margins.of(ranking.scores, spread_over(contents, queries), calibration)
        return cls(calibration, ranking, margins, ranking.scores.shape[1] >= len(contents))

    def candidates(self) -> Tensor:
        """How many candidates each query needs, int64 [b]."""
        chances = self.margins.chances[:, : self.calibration.depth]
        return torch.from_numpy(candidates(chances, self.calibration.share, self.calibration.k))

    def of_last(
        self, handed_on: Tensor, held: Held, asked: Tensor, found: Ranking, refined: bool
    ) -> Values:
        """The chance of each of the last stage's best k to be in the top k, [b, j].

        Args:
            handed_on: positions [b, c] that the last stage was handed.
            held: what it has encoded.
            asked: its queries [b, d].
            found: its ranking.
            refined: whether that ranks whatever else it has encoded as well.
        """
        k, model = self.calibration.k, self.calibration.certainty
        width = handed_on.shape[1]
        slots = held.slots(handed_on)
        of_candidates = found
        if refined:
            of_candidates = rank_candidates(handed_on, held.rows.embeddings, slots, asked)
        read = (slots >= 0).numpy()
        count = read.sum(axis=1).clip(min=1)
        first = self.margins.scores[:, :width].copy()
        first[~read] = 0
        last = of_candidates.scores.double()
        last = last.where(of_candidates.positions != NOTHING, 0)
        offset = (last.sum(dim=1).numpy() - model.slope * first.sum(axis=1)) / count
        unseen = torch.ones(self.ranking.positions.shape, dtype=torch.bool)
        unseen[:, :width] = handed_on == NOTHING
        if refined:
            unseen &= held.slots(self.ranking.positions) < 0
        best = found.scores[:, :k].double().numpy()
        seen = Seen(self.margins.scores, self.margins.spread, unseen.numpy(), best, offset)
        return chance(seen, k, model, self.whole)
