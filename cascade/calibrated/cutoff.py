"""Whether anything in a collection matches a query: a threshold on what its best hit scores.

It is learnt from queries that something matches and such that nothing does
(`evaluation.planning.cutting`), and stands in the collection's record with what it belongs to.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from cascade.calibrated.calibration import Candidates, unfit

Score: TypeAlias = Literal["best", "standardised"]
"""best: the last stage's score of the best hit. standardised: that less the mean of the first
stage's scores of the query over the collection, in their standard deviations."""
SCORES: tuple[Score, ...] = ("best", "standardised")


@dataclass(frozen=True)
class Cutoff:
    """A threshold below which nothing matches well, and how often it is right.

    Attributes:
        stages: the names of the two stages that it was learnt from.
        score: what is compared with it.
        threshold: queries whose score is below it are said to match nothing.
        m: candidates that were handed on: with fewer a score may be lower.
        rejects: the share of the queries that something matches of which that is said, at most.
        caught: the share of those that nothing matches of which it was said.
        caught_at_least: what that share is at least.
        confidence: how sure these two are, in (0, 1), each by itself.
        queries: how many the threshold was read off.
        tested: how many others of each kind it was tested on.
        of: what the queries are that something matches.
        against: what those are that nothing matches.
        images: that the collection held then.
    """

    stages: tuple[str, ...]
    score: Score
    threshold: float
    m: int | Literal["auto"]
    rejects: float
    caught: float
    caught_at_least: float
    confidence: float
    queries: int
    tested: int
    of: str
    against: str
    images: int

    @classmethod
    def of_entries(cls, entries: Mapping[str, Any]) -> "Cutoff":
        """What `dataclasses.asdict` and JSON have made of one.

        Raises:
            TypeError: the entries are others.
            KeyError: one is missing.
            ValueError: it compares another score.
        """
        if entries["score"] not in SCORES:
            raise ValueError(f"a cutoff on the score {entries['score']!r}, which isn't known")
        return cls(**{**entries, "stages": tuple(entries["stages"])})

    def unfit(self, stages: Sequence[str], images: int) -> str | None:
        """Why it doesn't belong to these stages and so many images; None: it does."""
        return unfit(self.stages, self.images, stages, images)

    def serves(self, m: Candidates) -> bool:
        """Whether what it says holds with so many candidates: as many as it was learnt with."""
        if self.m == "auto" or m == "auto":
            return self.m == m
        return bool(m) and m[0] >= self.m

    def matches(self, score: float) -> bool:
        """Whether something matches a query, as far as its score says."""
        return score >= self.threshold
