"""The three lanes of the tests: fast for the edit loop, all of them, and all of them thoroughly.

`make test-fast` leaves out the slow tests, which `slow.txt` names.

    python -m pytest --durations=0 -vv | tee durations.log
    python -m tests.lanes durations.log

chooses them anew: those of the longest duration, so many that the others take `BUDGET` seconds of
one core together. The file names test functions, all parameters together, as
`test_file.py::test_name`, wherever the file lies.

`make test-thorough` sets `THOROUGH` in the environment. A test that takes long for each of its
parameters runs with all of them there (`sweep`), and with more examples (`examples`); elsewhere
with those few that between them reach every branch.
"""

import os
import re
import sys
from collections import defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TypeVar

import pytest

BUDGET = 10.0
"""Seconds on one core, beside half a minute to start and what is loaded at its first use."""
FILE = Path(__file__).with_name("slow.txt")

_DURATION = re.compile(r"(?P<seconds>[\d.]+)s (call|setup|teardown) +(?P<test>\S+::[^\[\s]+)")


Value = TypeVar("Value")
THOROUGH = bool(os.environ.get("THOROUGH"))
"""Whether all parameters and examples are asked for."""
thorough_only = pytest.mark.skipif(not THOROUGH, reason="takes long: make test-thorough")


def sweep(values: Iterable[Value], few: Collection[Value]) -> list[Value]:
    """The values of a parameter: all of them where that is asked for, elsewhere a few.

    Raises:
        ValueError: one of the few is none of the values.
    """
    every = list(values)
    if strange := [value for value in few if value not in every]:
        raise ValueError(f"{strange} are none of {every}")
    return every if THOROUGH else list(few)


def examples(few: int, many: int) -> int:
    """How many examples a property is tried on: `many` where that is asked for, elsewhere a few."""
    return many if THOROUGH else few


def function_of(nodeid: str) -> str:
    """The test function of a test: `test_file.py::test_name`."""
    return nodeid.partition("[")[0].rpartition("/")[2]  # a parameter may hold a /


def slowest(durations: Iterable[str], budget: float = BUDGET) -> list[str]:
    """The test functions to leave out so that the others take at most `budget` seconds.

    Args:
        durations: lines of what `pytest --durations=0 -vv` prints.
        budget: in seconds.
    """
    seconds: defaultdict[str, float] = defaultdict(float)
    for line in durations:
        if match := _DURATION.match(line):
            seconds[function_of(match["test"])] += float(match["seconds"])
    left = sum(seconds.values())
    slow = []
    for function, duration in sorted(seconds.items(), key=lambda item: -item[1]):
        if left <= budget:
            break
        slow.append(function)
        left -= duration
    return sorted(slow)


def mark_slow(items: Iterable[pytest.Item]) -> None:
    """Mark the tests that `slow.txt` names."""
    slow = set(FILE.read_text().split())
    for item in items:
        if function_of(item.nodeid) in slow:
            item.add_marker("slow")


if __name__ == "__main__":
    FILE.write_text("\n".join(slowest(Path(sys.argv[1]).read_text().splitlines())) + "\n")
