"""The two lanes of the tests: `make test` runs all, `make test-fast` leaves out the slow ones.

    python -m pytest --durations=0 -vv | tee durations.log
    python -m tests.lanes durations.log

chooses the slow tests anew and writes them to `slow.txt`: those of the longest duration, so many
that the others take `BUDGET` seconds of one core together. The file names test functions, all
parameters together, as `test_file.py::test_name`, wherever the file lies.
"""

import re
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest

BUDGET = 80.0
"""Seconds on one core: two cores then take 40, and start up within the minute."""
FILE = Path(__file__).with_name("slow.txt")

_DURATION = re.compile(r"(?P<seconds>[\d.]+)s (call|setup|teardown) +(?P<test>\S+::[^\[\s]+)")


def function_of(nodeid: str) -> str:
    """The test function of a test: `test_file.py::test_name`."""
    return nodeid.rpartition("/")[2].partition("[")[0]


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
