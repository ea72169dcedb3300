"""A share of seconds, corrected by what the finished tower takes.

Prices add up what parts take one at a time; a whole tower may take more or less. So what was made
under a share is measured, and made again under a share that is corrected by that.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Made = TypeVar("Made")

MARGIN = 0.99
"""Share of the constraint that a correction aims at: a clock doesn't repeat itself exactly."""


@dataclass(frozen=True)
class Attempt(Generic[Made]):
    """What was made under a share of the dense tower's seconds, and the share that it took."""

    made: Made
    asked: float
    took: float


def attempts(
    make: Callable[[float], Made],
    took: Callable[[Made], float],
    constraint: float,
    first: float,
    most: int,
) -> Iterator[Attempt[Made]]:
    """Make something under a share of seconds, and again under corrected ones.

    Args:
        make: makes it under a share.
        took: measures the share that it takes.
        constraint: what it may take.
        first: the share that it is made under at first; others may count in other seconds.
        most: times that it is made.
    """
    share = first
    for _ in range(most):
        made = make(share)
        attempt = Attempt(made, share, took(made))
        yield attempt
        share = min(1.0, share * MARGIN * constraint / attempt.took)
