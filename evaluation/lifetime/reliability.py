"""How far stated probabilities are from what happens: a reliability table."""

from collections.abc import Sequence

import numpy as np

from evaluation.reports.stream import Bin

BINS = 10


def reliability(stated: Sequence[float], happened: Sequence[bool]) -> tuple[Bin, ...]:
    """Stated probabilities in ten bins of equal width, beside how often it happened; none is empty.

    Raises:
        ValueError: there is nothing, or not one outcome for each.
    """
    if not len(stated) or len(stated) != len(happened):
        raise ValueError(f"{len(stated)} probabilities and {len(happened)} outcomes")
    chances, outcomes = np.asarray(stated, np.float64), np.asarray(happened, np.float64)
    bins = np.minimum((chances * BINS).astype(int), BINS - 1)
    return tuple(
        Bin(
            low=number / BINS,
            high=(number + 1) / BINS,
            hits=int((bins == number).sum()),
            stated=float(chances[bins == number].mean()),
            happened=float(outcomes[bins == number].mean()),
        )
        for number in range(BINS)
        if (bins == number).any()
    )


def calibration_error(bins: Sequence[Bin]) -> float:
    """Expected calibration error: mean distance of stated and happened, weighted by hits."""
    hits = sum(each.hits for each in bins)
    return sum(each.hits * abs(each.stated - each.happened) for each in bins) / hits
