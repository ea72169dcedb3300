"""What a plan has learnt of how the two stages of a collection agree: plain numbers.

It stands in the collection's record, with what it belongs to, and is not used for anything else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

CALIBRATE = "python -m evaluation.plan COLLECTION --m auto"
"""The command that makes one."""
GROWTH = 2.0
"""By how much a collection may have grown or shrunk since."""

Candidates: TypeAlias = Sequence[int] | Literal["auto"]
"""Candidates handed on: a number for each stage but the last, or as many as each query needs."""


@dataclass(frozen=True)
class Membership:
    """The chance that the image at rank r of the first stage is in the full tower's top k.

    Its logit is intercept + log_rank·x + log_rank_squared·x² + margin·z, with x = log(r / k) and z
    the score less the k-th best score, in standard deviations of the query's scores over the
    collection.
    """

    intercept: float
    log_rank: float
    log_rank_squared: float
    margin: float


@dataclass(frozen=True)
class Certainty:
    """What the full tower's scores are expected to be, given the first stage's.

    Attributes:
        slope: of the full tower's scores on the first stage's, within a query.
        noise: how far they scatter around that line, in standard deviations of the query's first
            scores over the collection.
        intercept: of the logit that is reported on the logit of the chance that follows from these.
        steepness: the slope of that.
    """

    slope: float
    noise: float
    intercept: float
    steepness: float


@dataclass(frozen=True)
class Calibration:
    """How the stages of a collection agree, learnt from queries and its own images.

    Attributes:
        stages: the names of the two stages that it was learnt from.
        k: the full tower's results that it is about.
        depth: the most candidates that are handed on.
        membership: chances by first-stage rank and score.
        certainty: what is left uncertain of what the last stage has ranked.
        share: the share of the expected results that candidates have to hold: what "auto" means.
        agreement: the mean agreement@k that is certified for that.
        confidence: how sure that is, in (0, 1).
        queries: how many it was learnt from.
        certified_on: how many others it was certified on.
        of: what these queries are.
        encoded: images that the full tower had ranked.
        images: that the collection held then.
    """

    stages: tuple[str, ...]
    k: int
    depth: int
    membership: Membership
    certainty: Certainty
    share: float
    agreement: float
    confidence: float
    queries: int
    certified_on: int
    of: str
    encoded: int
    images: int

    @classmethod
    def of_entries(cls, entries: Mapping[str, Any]) -> "Calibration":
        """What `dataclasses.asdict` and JSON have made of one.

        Raises:
            TypeError: the entries are others.
            KeyError: one is missing.
        """
        nested = {
            "stages": tuple(entries["stages"]),
            "membership": Membership(**entries["membership"]),
            "certainty": Certainty(**entries["certainty"]),
        }
        return cls(**{**entries, **nested})

    def unfit(self, stages: Sequence[str], images: int) -> str | None:
        """Why it doesn't belong to these stages and so many images; None: it does."""
        return unfit(self.stages, self.images, stages, images)


def unfit(
    learnt_from: Sequence[str], learnt_with: int, stages: Sequence[str], images: int
) -> str | None:
    """Why what was learnt doesn't belong to these stages and so many images; None: it does.

    Args:
        learnt_from: the names of the stages then.
        learnt_with: how many images there were then.
        stages: the names of the stages now.
        images: how many there are now.
    """
    if tuple(stages) != tuple(learnt_from):
        return "it was learnt from other stages"
    if not learnt_with / GROWTH <= images <= learnt_with * GROWTH:
        return f"it was learnt when there were {learnt_with:,} images, and now are {images:,}"
    return None


def needed(
    calibration: Calibration | None,
    stages: Sequence[str],
    images: int | None = None,
    k: int = 1,
) -> Calibration:
    """The calibration, if m can be chosen for each query by it.

    Args:
        calibration: what there is.
        stages: the names of those that are searched with.
        images: of the collection; None: not known yet.
        k: results of a query.

    Raises:
        ValueError: there is none, it belongs to something else, or to a smaller k.
    """
    if calibration is None:
        raise ValueError(f'm="auto" needs a calibration: make one with {CALIBRATE}')
    if why := calibration.unfit(stages, calibration.images if images is None else images):
        raise ValueError(f'm="auto" can\'t use the calibration: {why}. Again: {CALIBRATE}')
    if k > calibration.k:
        raise ValueError(
            f'm="auto" was calibrated for k = {calibration.k}, not for {k}: ask for fewer, or '
            f"{CALIBRATE} --k {k}"
        )
    return calibration
