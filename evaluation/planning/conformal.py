"""A threshold that wrongly rejects at most a stated share, whatever scores are distributed like.

Pure functions on arrays; split conformal prediction with a confidence on its share.
"""

import numpy as np
from scipy import stats

from evaluation.planning.certifying import Values


def rejected_at_most(number: int, share: float, confidence: float) -> int:
    """How many of so many scores may be at or below a threshold.

    The r-th smallest of n independent scores has at most a share U of all scores below it, and U is
    no larger than a Beta(r, n + 1 - r) number is. So P(U ≤ share) ≥ P(Bin(n, share) ≥ r), and the
    largest r for which that is at least the confidence is taken (conformal prediction conditional
    on what it was calibrated on: arXiv 1209.2673, proposition 2a).

    Args:
        number: n, of scores.
        share: in (0, 1), of all scores that may be below.
        confidence: in (0, 1).

    Returns:
        r; 0: there are too few scores.
    """
    counts = np.arange(1, number + 1)
    fits = stats.binom.sf(counts - 1, number, share) >= confidence
    return int(fits.sum())  # the chance falls with r


def threshold(scores: Values, share: float, confidence: float) -> float | None:
    """What at most a share of all scores is below, with that confidence; None: there are too few.

    Args:
        scores: [n], independent of each other and drawn as all are.
        share: in (0, 1).
        confidence: in (0, 1).
    """
    rank = rejected_at_most(len(scores), share, confidence)
    return float(np.sort(scores)[rank - 1]) if rank else None


def scores_needed(share: float, confidence: float) -> int:
    """How many scores are needed at the very least: (1 - share)^n ≤ 1 - confidence."""
    return int(np.ceil(np.log(1 - confidence) / np.log(1 - share) - 1e-9))


def share_at_least(happened: int, number: int, confidence: float) -> float:
    """What a share is at least, given how often it happened: Clopper and Pearson's bound.

    Raises:
        ValueError: it was never looked at.
    """
    if number < 1:
        raise ValueError("a share of nothing has no bound")
    if not happened:
        return 0.0
    return float(stats.beta.ppf(1 - confidence, happened, number - happened + 1))
