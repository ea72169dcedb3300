"""From agreements of sampled queries to the smallest m that is certified: Learn then Test.

Pure functions on arrays. What they certify is the mean over the queries that the sample was drawn
from, independently and each with the same distribution; nothing else is assumed.

Learn then Test (arXiv 2110.01052) tests for each m the hypothesis "the mean agreement is below the
target", and hands on those m for which it is rejected. Testing runs along a sequence that is fixed
beforehand, from the largest m down, and stops at the first that isn't rejected (fixed sequence
testing): so no correction for many tests is needed, and the chance that the m it ends with misses
the target is at most 1 - confidence.

Of several first stages each has a sequence of its own, and they share the error that is allowed in
equal parts (Bonferroni; sequences that begin at several points, in that paper's section on fixed
sequence testing). So with the stated confidence all that is certified of any of them holds at once,
and whichever is chosen, by whatever rule and on the same queries, is certified.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import stats

from cascade.measuring.finding import Found

Values: TypeAlias = npt.NDArray[np.float64]
PValue: TypeAlias = Callable[[Values, float], float]
"""Agreements [n] in [0, 1] and a target → p-value of "their mean is at most the target"."""

_STAKES = np.linspace(0.02, 1, 50)
_EXACT = 1e-9  # sums of fractions are exact to that
_HALVINGS = 40


def hoeffding_bentkus(agreements: Values, target: float) -> float:
    """The Hoeffding–Bentkus p-value of "the mean agreement is at most the target".

    min(exp(-n h(min(r, a), a)), e P(Bin(n, a) ≤ ⌈n r⌉)) with r the mean of the losses
    1 - agreement, a = 1 - target and h(r, a) = r log(r / a) + (1 - r) log((1 - r) / (1 - a)): the
    Hoeffding–Bentkus inequality p-value of arXiv 2110.01052, after arXiv 2101.02703.

    Args:
        agreements: [n] in [0, 1], of queries drawn independently.
        target: in (0, 1].

    Raises:
        ValueError: there are none, or one or the target is out of range.
    """
    _check(agreements, target)
    if target == 1:
        return 1.0
    count, allowed = len(agreements), 1 - target
    lost = float((1 - agreements).sum())
    share = min(max(lost / count, 0.0), allowed)
    hoeffding = np.exp(-count * _divergence(share, allowed))
    bentkus = np.e * stats.binom.cdf(np.ceil(lost - _EXACT), count, allowed)
    return float(min(1.0, hoeffding, bentkus))


def betting(agreements: Values, target: float) -> float:
    """The p-value of "the mean agreement is at most the target" by betting against it.

    Whoever stakes a share s of their money on each agreement a, at odds that are fair if the mean
    is the target b, ends with K(s) = Π (1 + s (a / b - 1)) times what they had: at most once as
    much on average if the mean is at most b, so 1 / K is a p-value by Markov's inequality
    (Waudby-Smith and Ramdas, arXiv 2010.09686: the capital process, with a mixture of fixed
    stakes). K here is the mean over stakes from 2 % to all, so that none has to be guessed from
    the values, and their order makes no difference.

    It knows how little agreements vary, so it needs fewer queries than `hoeffding_bentkus` does,
    except where almost all agree fully.

    Args:
        agreements: [n] in [0, 1], of queries drawn independently.
        target: in (0, 1].

    Raises:
        ValueError: there are none, or one or the target is out of range.
    """
    _check(agreements, target)
    values, counts = np.unique(agreements, return_counts=True)  # there are k + 1 at most
    factors = np.maximum(1 + _STAKES[:, None] * (values / target - 1), 0)
    with np.errstate(divide="ignore"):
        money = np.log(factors) @ counts
    return float(min(1.0, np.exp(np.log(len(_STAKES)) - np.logaddexp.reduce(money))))


P_VALUES: dict[str, PValue] = {"betting": betting, "hoeffding-bentkus": hoeffding_bentkus}
"""By name. Which one is used has to be settled before the agreements are seen."""


def lower_bound(agreements: Values, confidence: float, p_value: PValue = betting) -> float:
    """What the mean agreement is at least, with that confidence: the targets that are rejected.

    It holds for agreements that were chosen beforehand: of many bounds, not for the best.

    Raises:
        ValueError: there are no agreements, or one or the confidence is out of range.
    """
    _check_confidence(confidence)
    _check(agreements, 1)
    low, high = 0.0, 1.0  # p-values rise with the target
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if p_value(agreements, middle) <= 1 - confidence:
            low = middle
        else:
            high = middle
    return low


def smallest_m(
    found: Found,
    target: float,
    confidence: float,
    smallest: int,
    largest: int,
    p_value: PValue = betting,
) -> int | None:
    """The smallest m whose mean agreement is certified to be at least the target.

    Fixed sequence testing along largest, largest - 1, …, smallest. Agreements can't fall as m grows
    and a p-value can't rise with them, so the sequence needn't be walked step by step: where it
    stops is found by halving.

    Args:
        found: what was measured on the sample.
        target: mean agreement, in (0, 1].
        confidence: in (0, 1).
        smallest: m that the sequence ends with.
        largest: m that it begins with.
        p_value: settled beforehand.

    Returns:
        m, or None if not even the largest is certified.

    Raises:
        ValueError: a number is out of range, or there are no queries.
    """
    _check_confidence(confidence)
    if not 1 <= smallest <= largest:
        raise ValueError(f"m goes from {smallest} to {largest}: at least 1, and not downwards")

    def certified(m: int) -> bool:
        return p_value(found.agreements(m), target) <= 1 - confidence

    if not certified(largest):
        return None
    low, high = smallest - 1, largest  # high is certified; low isn't, or is out of bounds
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if certified(middle) else (middle, high)
    return high


def smallest_m_of_each(
    founds: Sequence[Found],
    target: float,
    confidence: float,
    ranges: Sequence[tuple[int, int]],
    p_value: PValue = betting,
) -> list[int | None]:
    """The smallest m of each first stage that is certified, all at once with that confidence.

    Args:
        founds: what was measured of each on the same queries.
        target: as of `smallest_m`.
        confidence: that nothing certified here misses the target.
        ranges: the smallest and the largest m of each.
        p_value: as of `smallest_m`.

    Raises:
        ValueError: as of `smallest_m`, or there is not one range for each.
    """
    each = confidence_of_each(confidence, len(founds))
    return [
        smallest_m(found, target, each, smallest, largest, p_value)
        for found, (smallest, largest) in zip(founds, ranges, strict=True)
    ]


def confidence_of_each(confidence: float, number: int) -> float:
    """The confidence that each of so many certificates needs, so that together they have this one.

    Raises:
        ValueError: there are none, or the confidence is out of range.
    """
    _check_confidence(confidence)
    if number < 1:
        raise ValueError("there is nothing to certify")
    return 1 - (1 - confidence) / number


def queries_needed(target: float, confidence: float, p_value: PValue = betting) -> int:
    """How many queries are needed at the very least: as many as do if all agree fully.

    Raises:
        ValueError: the target isn't in (0, 1), or the confidence is out of range.
    """
    if not 0 < target < 1:
        raise ValueError(f"an agreement of {target} can't be certified by any number of queries")
    _check_confidence(confidence)
    low, high = 0, 1
    while p_value(np.ones(high), target) > 1 - confidence:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        enough = p_value(np.ones(middle), target) <= 1 - confidence
        low, high = (low, middle) if enough else (middle, high)
    return high


def _divergence(share: float, of: float) -> float:
    """Kullback–Leibler divergence of two coins, share < 1 and 0 < of < 1."""
    tails = (1 - share) * np.log((1 - share) / (1 - of))
    return float(tails if share == 0 else share * np.log(share / of) + tails)


def _check(agreements: Values, target: float) -> None:
    if agreements.ndim != 1 or not len(agreements):
        raise ValueError(f"agreements are [n] of at least one query, got {agreements.shape}")
    if not ((agreements >= 0) & (agreements <= 1)).all():
        raise ValueError("agreements are shares, in [0, 1]")
    if not 0 < target <= 1:
        raise ValueError(f"the target is a share, in (0, 1], got {target}")


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"the confidence is a share, in (0, 1), got {confidence}")
