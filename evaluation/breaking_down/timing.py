"""Timing ways from files to embeddings in turn, each on as many cores as it may use."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch

from evaluation.breaking_down.ways import Steps, Way
from evaluation.measuring.clock import summarise
from evaluation.measuring.values import Timing
from evaluation.reports.breakdown.report import Split
from pruning_mechanism.costs.clock import Name, in_turn


@dataclass(frozen=True)
class Measured:
    """What was measured of one way: seconds and bytes of an image."""

    split: Split
    end_to_end: Timing
    nbytes: float


@dataclass
class _Noted:
    """The steps of each turn of a way."""

    way: Way
    files: Sequence[Path]
    turns: list[Steps] = field(default_factory=list)

    def __call__(self) -> None:
        self.turns.append(self.way.steps(self.files))

    def split(self, repetitions: int) -> Split:
        """The steps of the last turns; those before were to warm up."""
        turns = self.turns[-repetitions:]

        def of(seconds: Callable[[Steps], float]) -> Timing:
            return summarise(np.divide([seconds(turn) for turn in turns], len(self.files)))

        return Split(
            read=of(lambda turn: turn.read),
            decode=of(lambda turn: turn.decode),
            prepare=of(lambda turn: turn.prepare),
            encode=of(lambda turn: turn.encode),
        )


def measured(
    ways: Mapping[Name, Way], files: Sequence[Path], repetitions: int, device: str
) -> dict[Name, Measured]:
    """Time ways in turn on the same files, each step by step and then as a whole.

    The two take turns as well, so that what a machine does beside slows both alike. The files were
    all read in the first turn, which isn't timed, so they come from memory where that holds them
    (a warm page cache).

    Args:
        ways: at least one.
        files: at least one.
        repetitions: timed turns.
        device: where the towers run.
    """
    noted = {name: _Noted(way, files) for name, way in ways.items()}
    turns: dict[tuple[Name, bool], Callable[[], object]] = {}
    for name, way in ways.items():
        turns[name, False] = noted[name]
        turns[name, True] = partial(way.whole, files)
    seconds = in_turn(turns, repetitions, torch.device(device), progress="seconds")
    return {
        name: Measured(
            split=noted[name].split(repetitions),
            end_to_end=summarise(np.divide(seconds[name, True], len(files))),
            nbytes=noted[name].turns[-1].nbytes / len(files),
        )
        for name in ways
    }


@contextmanager
def on_cores(number: int) -> Iterator[None]:
    """Compute with so many threads, on so many cores where the system can hold a process to them.

    Stages must be loaded inside, so that what they start is held to the cores too.

    Raises:
        ValueError: there are fewer cores.
    """
    before = _cores()
    if number > len(before):
        raise ValueError(f"{number} threads were asked for, but there are {len(before)} cores")
    threads = torch.get_num_threads()
    _hold_to(before[:number])
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        _hold_to(before)


def _cores() -> list[int]:
    """Those that this process may use, as far as the system says."""
    if sys.platform == "linux":
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _hold_to(cores: Sequence[int]) -> None:
    """Run this thread, and those that it starts, on these cores alone."""
    if sys.platform == "linux":
        os.sched_setaffinity(0, cores)
