"""How much of a file is read for a tower: all of it, as much as its size asks for, or a thumbnail.

The words that stages, records and commands use, and the numbers behind them.
"""

import math
import threading
from collections import Counter
from typing import Literal, get_args

Reads = Literal["full", "scaled", "thumbnail"]
"""How a file is read.

full: as `ENOUGH` and `WHOLE` say, with many more pixels than a tower takes.
scaled: as few pixels of the shorter edge as are still `SCALED` times what the tower takes.
thumbnail: the picture embedded in the file, if it has `THUMBNAIL` of what the tower takes and shows
the same; else scaled. Of most files only the head is read then.
"""
READS: tuple[Reads, ...] = get_args(Reads)

ENOUGH = 4
WHOLE = 720
SCALED = 1.5
THUMBNAIL = 1 / 3

Outcome = Literal["used", "absent", "too small", "other shape", "broken", "stale"]
"""What came of looking for a thumbnail; `stale`: it turned out to show another picture."""


def known(reads: str) -> Reads:
    """One of the ways to read; raises ValueError if there is no such."""
    for way in READS:
        if reads == way:
            return way
    raise ValueError(f"reads must be one of {', '.join(READS)}, got {reads!r}")


def wanted(edge: int | None, reads: Reads = "full") -> int | None:
    """Pixels of a picture's shorter edge that a tower is given, if it takes `edge` of them.

    None: the tower takes pictures of any size, which are then decoded in full.
    """
    if edge is None:
        return None
    return max(ENOUGH * edge, WHOLE) if reads == "full" else math.ceil(SCALED * edge)


def enough(at_least: int) -> int:
    """Pixels of a thumbnail's shorter edge that do, where `at_least` are wanted of a picture."""
    return math.ceil(THUMBNAIL / SCALED * at_least)


class Tally:
    """How often each `Outcome` was met; any thread may add to it."""

    def __init__(self) -> None:
        self._counts: Counter[Outcome] = Counter()
        self._lock = threading.Lock()

    def add(self, outcome: Outcome) -> None:
        """Count one more."""
        with self._lock:
            self._counts[outcome] += 1

    def take(self, other: "Tally") -> None:
        """Count all that another has counted too."""
        counts = other.counts
        with self._lock:
            self._counts.update(counts)

    def __getstate__(self) -> dict[str, Counter[Outcome]]:
        """Without the lock: stages travel between processes."""
        with self._lock:
            return {"_counts": self._counts.copy()}

    def __setstate__(self, state: dict[str, Counter[Outcome]]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    @property
    def counts(self) -> dict[Outcome, int]:
        """Those that were met, by how often, in the order of `Outcome`."""
        with self._lock:
            return {name: self._counts[name] for name in get_args(Outcome) if self._counts[name]}
