"""Wall clock of contenders in turn (A B A B …), which is what every speedup here rests on.

Taking turns lets a machine that slows down (heat, a neighbour, a power limit) slow all
contenders alike. Medians and quartiles are given, never the best of several runs.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from cascade import Stage, lifetime_speedup
from evaluation.bootstrap import Interval


@dataclass(frozen=True)
class Timing:
    """Seconds per image over several repetitions."""

    median: float
    lower_quartile: float
    upper_quartile: float
    repetitions: int


def seconds_per_image(
    contenders: Mapping[str, Callable[[], object]],
    images: int,
    repetitions: int = 5,
    warmup: int = 1,
    device: str | torch.device = "cpu",
) -> dict[str, Timing]:
    """Time contenders in turn: all of them once, then all of them again, ….

    Args:
        contenders: name → a call that handles `images` images.
        images: number of images that one call handles.
        repetitions: timed calls a contender.
        warmup: untimed calls a contender beforehand, also in turn.
        device: where the work runs; anything but the CPU is synchronised around each call.

    Returns:
        name → `Timing` in seconds per image, in the order given.

    Raises:
        ValueError: nothing to time, or a count is out of range.
    """
    if not contenders:
        raise ValueError("there is nothing to time: contenders is empty")
    if images < 1 or repetitions < 1 or warmup < 0:
        raise ValueError(
            "need images ≥ 1, repetitions ≥ 1 and warmup ≥ 0, "
            f"got {images}, {repetitions} and {warmup}"
        )
    device = torch.device(device)
    for _ in range(warmup):
        for work in contenders.values():
            work()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repetitions):
        for name, work in contenders.items():
            seconds[name].append(_seconds(work, device) / images)
    return {name: summarise(each) for name, each in seconds.items()}


@dataclass(frozen=True)
class StageTiming:
    """Seconds per image of one stage: from ready pixels, and from the bytes of files."""

    encoder: Timing
    end_to_end: Timing

    def basis(self, name: str) -> Timing:
        """The seconds that speedups are made of: "encoder" or "end to end"."""
        return self.encoder if name == "encoder" else self.end_to_end


def stage_timings(
    stages: Mapping[str, Stage], sources: Sequence[bytes], repetitions: int, device: str
) -> dict[str, StageTiming]:
    """Time stages in turn on one batch of images, encoder only and end to end.

    Args:
        stages: name → stage.
        sources: the bytes of the images' files.
        repetitions: timed turns.
        device: where the stages run.
    """
    pixels = {name: stage.pixels(sources) for name, stage in stages.items()}
    encoder = {name: partial(stage.encode_pixels, pixels[name]) for name, stage in stages.items()}
    whole = {name: partial(stage.encode_images, sources) for name, stage in stages.items()}
    timed = [
        seconds_per_image(turn, len(sources), repetitions, device=device)
        for turn in (encoder, whole)
    ]
    return {name: StageTiming(*(each[name] for each in timed)) for name in stages}


def summarise(seconds: Sequence[float]) -> Timing:
    """Median and quartiles of measured seconds per image.

    Raises:
        ValueError: `seconds` is empty.
    """
    if len(seconds) == 0:
        raise ValueError("no measurement to summarise")
    low, median, high = np.quantile(np.asarray(seconds, dtype=np.float64), (0.25, 0.5, 0.75))
    return Timing(float(median), float(low), float(high), len(seconds))


def speedup_interval(timings: Sequence[Timing], f: float | Sequence[float]) -> Interval:
    """Lifetime speedup of a cascade from timings: medians, with bounds from the quartiles.

    The low bound has every earlier stage at its upper quartile and the last at its lower one, the
    high bound the reverse: no correlation between stages is assumed, so the bounds are wide
    rather than flattering. They are bounds of the clock, not a 95 % interval.

    Args:
        timings: one a stage, cheap to expensive.
        f: lifetime return fraction; see `cascade.lifetime_speedup`.

    Raises:
        ValueError: as `cascade.lifetime_speedup`.
    """
    *earlier, last = timings
    slow = [*(stage.upper_quartile for stage in earlier), last.lower_quartile]
    fast = [*(stage.lower_quartile for stage in earlier), last.upper_quartile]
    if not earlier:  # one stage against itself: the clock's noise says nothing about a speedup
        slow = fast = [last.median]
    return Interval(
        value=lifetime_speedup([stage.median for stage in timings], f),
        low=lifetime_speedup(slow, f),
        high=lifetime_speedup(fast, f),
    )


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    _synchronise(device)
    start = time.perf_counter()
    work()
    _synchronise(device)
    return time.perf_counter() - start


def _synchronise(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
