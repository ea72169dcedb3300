"""What each stage did for a query: for whoever wants to see how a search went."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Step:
    """What one stage did for some queries.

    Attributes:
        stage: its place in the cascade.
        images: how many it ranked for each query, at most.
        encoded: how many of them it encoded now; of the first stage 0.
        encoding_seconds: what that took.
        ranking_seconds: what the ranking took.
        best: for each query the keys and scores of what it ranked first, best first.
        how: in a few words, how the first stage was searched; of later ones nothing.
    """

    stage: int
    images: int
    encoded: int
    encoding_seconds: float
    ranking_seconds: float
    best: Sequence[Sequence[tuple[Hashable, float]]]
    how: str = ""


Watch: TypeAlias = Callable[[Step], None]
