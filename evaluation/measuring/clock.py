"""Seconds that stages take by the wall clock, measured in turn, and the speedups that follow.

Medians and quartiles are given, never the best of several runs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from cascade import ResumedStage, Stage, lifetime_speedup
from evaluation.measuring.values import Interval, Timing
from pruning_mechanism.costs.clock import Name, in_turn


def seconds_per_image(
    contenders: Mapping[Name, Callable[[], object]],
    images: int,
    repetitions: int = 5,
    warmup: int = 1,
    device: str | torch.device = "cpu",
    progress: str | None = None,
) -> dict[Name, Timing]:
    """Time contenders in turn: all of them once, then all of them again, ….

    Args:
        contenders: name → a call that handles `images` images.
        images: number of images that one call handles.
        repetitions: timed calls per contender.
        warmup: untimed calls per contender beforehand, also in turn.
        device: where the work runs; anything but the CPU is synchronised around each call.
        progress: the title of a bar.

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
    turns = in_turn(contenders, repetitions, torch.device(device), warmup, progress=progress)
    return {name: summarise(np.divide(seconds, images)) for name, seconds in turns.items()}


@dataclass(frozen=True)
class StageTiming:
    """Seconds per input of one stage, made ready beforehand or as it comes.

    An image from pixels and from the bytes of its file, a text from tokens and from its words.
    """

    encoder: Timing
    end_to_end: Timing

    def basis(self, name: str) -> Timing:
        """The seconds that speedups are made of: "encoder" or "end to end"."""
        return self.encoder if name == "encoder" else self.end_to_end


@dataclass(frozen=True)
class Work:
    """What a contender does with one batch of inputs, made ready beforehand or as they come."""

    encoder: Callable[[], object]
    end_to_end: Callable[[], object]


Contender = Callable[[Sequence[bytes]], Work]
"""Makes a contender's work from the bytes of image files."""


def encoding(stage: Stage) -> Contender:
    """A stage that embeds images."""

    def work(sources: Sequence[bytes]) -> Work:
        pixels = stage.pixels(sources).to(stage.device)
        return Work(partial(stage.encode_pixels, pixels), partial(stage.encode_images, sources))

    return work


def reading(stage: Stage, texts: Sequence[str]) -> Work:
    """A stage that embeds texts by its own text tower: from their tokens, and from their words."""
    tokens = stage.tokens(texts)
    return Work(partial(stage.encode_tokens, tokens), partial(stage.encode_texts, texts))


def keeping_states(stage: ResumedStage) -> Contender:
    """The early exit that a stage resumes from: it embeds images and keeps their states."""

    def work(sources: Sequence[bytes]) -> Work:
        pixels = stage.first.pixels(sources)
        return Work(
            partial(stage.encode_first_pixels, pixels), partial(stage.encode_first, sources)
        )

    return work


def resuming(stage: ResumedStage) -> Contender:
    """A stage that goes on from kept states; it opens no image, so end to end is the same work."""

    def work(sources: Sequence[bytes]) -> Work:
        on = partial(stage.encode_states, stage.encode_first(sources)[1])
        return Work(on, on)

    return work


def stage_timings(
    contenders: Mapping[Name, Contender], sources: Sequence[bytes], repetitions: int, device: str
) -> dict[Name, StageTiming]:
    """Time contenders in turn on one batch of images, encoder only and end to end.

    Args:
        contenders: name → what a stage does.
        sources: the bytes of the images' files.
        repetitions: timed turns.
        device: where the stages run.
    """
    works = {name: contender(sources) for name, contender in contenders.items()}
    return work_timings(works, len(sources), repetitions, device)


def work_timings(
    works: Mapping[Name, Work], inputs: int, repetitions: int, device: str, title: str = "seconds"
) -> dict[Name, StageTiming]:
    """Time what contenders do with one batch in turn, encoder only and end to end.

    Args:
        works: name → work with one batch.
        inputs: images or texts of the batch.
        repetitions: timed turns.
        device: where the stages run.
        title: of the progress bars.
    """
    turns = {
        "encoder": {name: work.encoder for name, work in works.items()},
        "end to end": {name: work.end_to_end for name, work in works.items()},
    }
    timed = [
        seconds_per_image(turn, inputs, repetitions, device=device, progress=f"{title}: {basis}")
        for basis, turn in turns.items()
    ]
    return {name: StageTiming(*(timings[name] for timings in timed)) for name in works}


def summarise(seconds: Sequence[float] | npt.NDArray[np.float64]) -> Timing:
    """Median and quartiles of measured seconds per image.

    Raises:
        ValueError: `seconds` is empty.
    """
    if len(seconds) == 0:
        raise ValueError("no measurement to summarise")
    low, median, high = np.quantile(np.asarray(seconds, dtype=np.float64), (0.25, 0.5, 0.75))
    return Timing(float(median), float(low), float(high), len(seconds))


def speedup_interval(
    timings: Sequence[Timing], f: float | Sequence[float], full: Timing | None = None
) -> Interval:
    """Lifetime speedup of a cascade from timings: medians, with bounds from the quartiles.

    The low bound has every earlier stage at its upper quartile and the last at its lower one, the
    high bound the reverse: no correlation between stages is assumed, so the bounds are wide
    rather than flattering. They are bounds of the clock, not a 95 % interval.

    Args:
        timings: one per stage, cheap to expensive.
        f: lifetime return fraction; see `cascade.lifetime_speedup`.
        full: of the full tower from the image, where the last stage resumes.

    Raises:
        ValueError: as `cascade.lifetime_speedup`.
    """
    if full is not None:
        return Interval(
            lifetime_speedup([stage.median for stage in timings], f, full.median),
            lifetime_speedup([stage.upper_quartile for stage in timings], f, full.lower_quartile),
            lifetime_speedup([stage.lower_quartile for stage in timings], f, full.upper_quartile),
        )
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
