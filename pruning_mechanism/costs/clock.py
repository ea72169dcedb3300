"""Wall clock of contenders in turn (A B A B …), which is what every measured second here rests on.

Taking turns lets a machine that slows down (heat, a neighbour, a power limit) slow all
contenders alike.
"""

import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from tqdm import tqdm

Name = TypeVar("Name", bound=Hashable)


def synchronise(device: torch.device) -> None:
    """Wait until a device has done its work; the CPU always has."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Seconds that a call takes, including the work that it leaves to a device."""
    synchronise(device)
    start = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - start


def in_turn(
    contenders: Mapping[Name, Callable[[], object]],
    repetitions: int,
    device: torch.device,
    warmup: int = 1,
    prepare: Callable[[Name], object] = lambda _name: None,
    progress: str | None = None,
) -> dict[Name, list[float]]:
    """Time contenders in turn: all of them once, then all of them again, ….

    Args:
        contenders: name → a call.
        repetitions: timed turns.
        device: where the work runs; anything but the CPU is synchronised around each call.
        warmup: untimed turns beforehand.
        prepare: called with a contender's name before its every call, untimed.
        progress: the title of a bar, which moves between turns.

    Returns:
        name → seconds of each timed call, in the order given.
    """
    seconds: dict[Name, list[float]] = {name: [] for name in contenders}
    turns = range(warmup + repetitions)
    for turn in tqdm(turns, desc=progress, unit="turn", disable=progress is None):
        for name, work in contenders.items():
            prepare(name)
            taken = seconds_of(work, device)
            if turn >= warmup:
                seconds[name].append(taken)
    return seconds


def noise_of(turns: Iterable[Sequence[float] | np.ndarray]) -> float:
    """The relative standard error of a median over turns; of all that were timed, the median.

    Args:
        turns: of each that was timed its seconds, or shares of seconds, turn by turn.
    """
    errors = []
    for taken in turns:
        low, median, high = np.quantile(taken, (0.25, 0.5, 0.75))
        # quartiles of a normal distribution are 1.35 deviations apart; the median of n
        # has 1.25 times the standard error of the mean
        errors.append(1.25 * (high - low) / 1.35 / median / np.sqrt(np.size(taken)))
    return float(np.median(errors))
