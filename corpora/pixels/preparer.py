"""What is called to prepare images: a processor's steps where they are known, else the processor.

Between `corpora.decoding`, which opens pictures, and a tower. Which of the two a checkpoint's
processor gets is decided by trying: steps that don't give the processor's own pixels, bit for bit,
on a few pictures aren't used, and `Preparer.fallback` says so.
"""

import logging
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol, TypeAlias

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from corpora.decoding.images import open_image
from corpora.decoding.reads import Reads, wanted
from corpora.pixels.backends import NoStepsError
from corpora.pixels.proportions import Proportions, different_sizes
from corpora.pixels.steps import Steps, steps_of
from corpora.problems import CorpusError

_logger = logging.getLogger(__name__)
_HELD_PIXELS = 8_000_000  # of decoded pictures that wait for a processor that is called as a whole
_CACHED_PIXELS = 1 << 18
"""Of small pictures that are opened one after the other, then prepared: a core that changes between
the two for each loses as long as preparing takes. More pixels would no longer be in its cache."""
_TRIED = ((37, 53), (301, 200), (90, 90))
"""Heights and widths of the pictures on which steps must agree with their processor."""

_Part: TypeAlias = tuple[list[int], Tensor]  # places among the images, and what is made of these

Opener = Callable[..., PIL.Image.Image]
"""(image, at_least) → upright RGB: opens one of the images, of whatever type these are, with at
least so many pixels an edge. It takes `reads` by name, if one is asked for that isn't "full"."""


class Preparing(Protocol):
    """An image processor of transformers, or a processor that has one."""

    def __call__(self, *, images: Sequence[Any], **options: Any) -> Any:
        """A dictionary with `pixel_values` [n, 3, height, width]."""


def pixel_values(
    processor: Preparing,
    images: Sequence[Any],
    opener: Opener = open_image,
    reads: Reads = "full",
) -> Tensor:
    """Open and prepare images: float32 [n, 3, height, width] on the CPU.

    Args:
        processor: an image processor of transformers, or a processor that has one.
        images: whatever `opener` takes.
        opener: (image, pixels wanted of the shorter edge) → upright RGB.
        reads: how much of a file is read.

    Raises:
        CorpusError: an image can't be opened or prepared; whatever else `opener` raises.
        ValueError: the processor makes images of different sizes.
    """
    preparer = Preparer.of(processor)
    return preparer.finished(preparer.levels(images, opener, reads))


def edge_taken(processor: Preparing) -> int | None:
    """Pixels of a picture's shorter edge that a processor leaves of it; None: all of them."""
    return Proportions.of(getattr(processor, "image_processor", processor)).target


class Preparer:
    """Prepares images as one processor, with the settings that it has now, does.

    In two parts, so that what waits between them is small, and the second may be done on another
    device: `levels` opens, resizes and crops, `finished` rescales and normalises.

    Attributes:
        processor: the image processor.
        fallback: why it is called as a whole, which takes several times as long; None: its steps
            are called alone, with the same outcome.
    """

    def __init__(self, processor: Preparing) -> None:
        """Prepare by a processor; see `of` for the usual way.

        Args:
            processor: an image processor of transformers, or a processor that has one.
        """
        self.processor: Preparing = getattr(processor, "image_processor", processor)
        self.fallback: str | None = None
        self._proportions = Proportions.of(self.processor)
        self._steps: Steps | None = None
        try:
            self._steps = _agreeing(self.processor)
        except NoStepsError as reason:
            self.fallback = str(reason)
            _logger.warning("images take several times as long to prepare as they need: %s", reason)

    @classmethod
    def of(cls, processor: Preparing) -> "Preparer":
        """The preparer of a processor, made anew only if its settings have changed since."""
        processor = getattr(processor, "image_processor", processor)
        settings = repr(getattr(processor, "__dict__", None))
        try:
            known = _MADE.get(processor)
            if known is not None and known[0] == settings:
                return known[1]
            made = cls(processor)
            _MADE[processor] = settings, made
        except TypeError:  # it can't be a key of a dictionary, or be referred to weakly
            return cls(processor)
        return made

    def levels(
        self, images: Sequence[Any], opener: Opener = open_image, reads: Reads = "full"
    ) -> Tensor:
        """Open, resize and crop images: uint8 [n, 3, height, width] on the CPU.

        Of a processor that is called as a whole these are its pixels, in whatever type it gives.

        Raises:
            CorpusError: an image can't be opened or prepared; whatever else `opener` raises.
            ValueError: the processor makes images of different sizes.
        """
        at_least = wanted(self._proportions.target, reads)
        opened = opener if reads == "full" else partial(opener, reads=reads)
        pictures = (self._proportions.shortened(opened(image, at_least)) for image in images)
        parts = self._by_steps(pictures) if self._steps else self._whole(pictures)
        levels: Tensor | None = None
        for places, part in parts:
            if levels is None:
                if len(part) == len(images) and part.is_contiguous():
                    return part
                levels = part.new_empty(len(images), *part.shape[1:])
            if error := different_sizes(tuple(each.shape[2:]) for each in (levels, part)):
                raise error
            # by numpy, which copies in this thread alone: torch's threads belong to the tower
            levels.numpy()[places] = part.numpy()
        return torch.zeros(0, 3, 0, 0) if levels is None else levels

    def finished(self, levels: Tensor) -> Tensor:
        """Pixels [n, 3, height, width] as the tower takes them, of `levels`, on their device."""
        if self._steps is None or not len(levels):
            return levels
        return self._steps.finished(levels)

    @property
    def on_devices(self) -> bool:
        """Whether decoded pictures on a device are prepared there: see `of_pixels`."""
        return self._steps is not None and self._steps.on_devices

    def of_pixels(self, pixels: Tensor) -> Tensor:
        """Decoded pictures of one size resized and cropped, on their device.

        Args:
            pixels: uint8 [n, 3, height, width].

        Returns:
            uint8 [n, 3, height, width].

        Raises:
            CorpusError: there is no memory for it.
            NoStepsError: this processor prepares on the CPU alone: see `on_devices`.
        """
        if self._steps is None:
            raise NoStepsError(self.fallback)
        try:
            return self._steps.of_pixels(pixels)
        except (MemoryError, RuntimeError) as error:  # what torch raises where memory ends
            raise _unprepared([(pixels.shape[3], pixels.shape[2])], error) from error

    def _by_steps(self, pictures: Iterable[PIL.Image.Image]) -> Iterator[_Part]:
        """Levels of pictures, those of one size together, and the places of these."""
        assert self._steps is not None
        start = 0
        for group in _groups(pictures, _CACHED_PIXELS):
            places: dict[tuple[int, int], list[int]] = {}
            for place, picture in enumerate(group):
                places.setdefault(picture.size, []).append(place)
            for alike in places.values():
                some = [group[place] for place in alike]
                try:
                    yield [start + place for place in alike], self._steps.levels(some)
                except (MemoryError, RuntimeError) as error:  # what torch raises where memory ends
                    raise _unprepared([image.size for image in some], error) from error
            start += len(group)

    def _whole(self, pictures: Iterable[PIL.Image.Image]) -> Iterator[_Part]:
        start = 0
        for group in _groups(pictures, _HELD_PIXELS):
            try:
                yield list(range(start, start + len(group))), _alone(self.processor, group)
            except (MemoryError, RuntimeError) as error:
                raise _unprepared([image.size for image in group], error) from error
            start += len(group)


_MADE: "weakref.WeakKeyDictionary[Preparing, tuple[str, Preparer]]" = weakref.WeakKeyDictionary()


def _groups(pictures: Iterable[PIL.Image.Image], most: int) -> Iterator[list[PIL.Image.Image]]:
    """The opened images in order, in lists of at most so many pixels, or of one image."""
    group: list[PIL.Image.Image] = []
    held = 0
    for picture in pictures:
        area = picture.width * picture.height
        if group and held + area > most:
            yield group
            group, held = [], 0
        group.append(picture)
        held += area
    if group:
        yield group


def _alone(processor: Preparing, group: Sequence[PIL.Image.Image]) -> Tensor:
    """What a processor makes of pictures by itself."""
    values: Tensor = processor(images=list(group), return_tensors="pt")["pixel_values"]
    return values


def _agreeing(processor: Preparing) -> Steps:
    """The fastest steps that give what the processor gives; raises `NoStepsError` if none do."""
    reason = NoStepsError("no steps are known")
    for steps in steps_of(processor):
        try:
            _check_agree(steps, processor)
        except NoStepsError as error:
            reason = error
        else:
            return steps
    raise reason


def _check_agree(steps: Steps, processor: Preparing) -> None:
    """Raise `NoStepsError` unless the steps give what the processor gives.

    A release of transformers may do more in between than is known here.
    """
    dice = np.random.default_rng(0)
    name = type(processor).__name__
    for shape in _TRIED:
        picture = PIL.Image.fromarray(dice.integers(0, 256, (*shape, 3), dtype=np.uint8))
        pictures = [picture, picture.transpose(PIL.Image.Transpose.ROTATE_180)]
        try:
            expected = _alone(processor, pictures)
        except Exception as error:  # so does every other picture, and that is said then
            raise NoStepsError(f"{name} fails on a picture: {error}") from error
        try:
            found = steps.finished(steps.levels(pictures))
        except NoStepsError:
            raise
        except Exception as error:  # of a release whose steps are called in another way
            raise NoStepsError(f"the steps of {name} can't be called alone: {error}") from error
        if found.dtype != expected.dtype or not torch.equal(found, expected):
            raise NoStepsError(f"{name} does more than its steps")


def _unprepared(sizes: Sequence[tuple[int, int]], error: BaseException) -> CorpusError:
    said = " ".join(f"{width} x {height}" for width, height in sizes[:3])
    reason = " ".join(str(error).split())[:200]
    return CorpusError(f"an image of {said} pixels can't be prepared ({reason})")
