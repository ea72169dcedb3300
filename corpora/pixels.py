"""From images to what a tower takes: open, prepare, hold few full pictures at once.

The one home of "image processor + images → pixel values", for stages and for calibration. Ordinary
images come out bit for bit as the processor alone makes them. What differs, so that the input
doesn't decide the cost:

- A file whose shorter edge has at least twice max(`ENOUGH` x the processor's size, `WHOLE`) pixels
  is decoded at 1/2, 1/4, … of its size; below 1,440 pixels, so of up to 2 megapixels, never. (So
  for a tower that reads in full; for others `corpora.decoding.reads` says what they read.) Of
  photographs enlarged to 24 megapixels the embeddings of a 12-layer CLIP kept a cosine of 0.99996
  and more to those of the full decoding, at 128 and at 224 pixels, in a seventh of the time.
- Of a picture longer than `LONG` times its width (or wider), the processor gets the middle part
  that holds what its own centre crop keeps, or, if it squeezes the whole into a square, a picture
  whose long edge is averaged down first. Enlarged as a whole, a picture of 1 x 20,000 pixels would
  have 10⁹.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import PIL.Image
import torch
from torch import Tensor

from corpora.decoding.images import open_image
from corpora.decoding.reads import ENOUGH, WHOLE, Reads, wanted
from corpora.problems import CorpusError

LONG = 16
_HELD_PIXELS = 8_000_000  # of decoded pictures that wait for the processor

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
    processor = getattr(processor, "image_processor", processor)
    shape = _Shape.of(processor)
    at_least = wanted(shape.target, reads)
    opened = opener if reads == "full" else partial(opener, reads=reads)
    pictures = (shape.shortened(opened(image, at_least)) for image in images)
    values: Tensor | None = None
    start = 0
    for group in _groups(pictures):
        prepared = _prepared(processor, group)
        if values is None:
            if len(group) == len(images):
                return prepared
            values = prepared.new_empty(len(images), *prepared.shape[1:])
        if prepared.shape[1:] != values.shape[1:]:
            sizes = (tuple(values.shape[2:]), tuple(prepared.shape[2:]))
            raise ValueError(f"the image processor makes images of different sizes: {sizes}")
        values[start : start + len(group)] = prepared
        start += len(group)
    return torch.zeros(0, 3, 0, 0) if values is None else values


def edge_taken(processor: Preparing) -> int | None:
    """Pixels of a picture's shorter edge that a processor leaves of it; None: all of them."""
    return _Shape.of(getattr(processor, "image_processor", processor)).target


@dataclass(frozen=True)
class _Shape:
    """What a processor does to the shape of a picture.

    `edge`: it makes the shorter edge this long and then keeps `crop` (height, width) of the middle.
    `box`: it squeezes the picture into this (height, width). None: it does neither.
    """

    edge: int | None = None
    crop: tuple[int, int] | None = None
    box: tuple[int, int] | None = None

    @classmethod
    def of(cls, processor: Preparing) -> "_Shape":
        size = _entries(getattr(processor, "size", None))
        if not getattr(processor, "do_resize", False):
            return cls()
        if set(size) == {"height", "width"}:
            return cls(box=(size["height"], size["width"]))
        crop = _entries(getattr(processor, "crop_size", None))
        crops = getattr(processor, "do_center_crop", False) and {"height", "width"} <= set(crop)
        if set(size) == {"shortest_edge"} and crops:
            return cls(edge=size["shortest_edge"], crop=(crop["height"], crop["width"]))
        return cls()

    @property
    def target(self) -> int | None:
        """Pixels of a picture's shorter edge that are left of it; None: all of them."""
        return self.edge or (max(self.box) if self.box else None)

    def shortened(self, image: PIL.Image.Image) -> PIL.Image.Image:
        """A picture of ordinary proportions as it is; an extreme one as far as it is needed."""
        short, long = sorted(image.size)
        if long <= LONG * short:
            return image
        if self.edge and self.crop:
            return _middle(image, _part(short, long, self.edge, self.crop))
        if self.box:
            limits = [max(ENOUGH * side, WHOLE) for side in reversed(self.box)]
            across, down = (max(1, s // most) for s, most in zip(image.size, limits, strict=True))
            return image if across == down == 1 else image.reduce((across, down))
        return image


def _part(short: int, long: int, edge: int, crop: tuple[int, int]) -> int:
    """Pixels of the long edge that surely hold the crop, scaled as if the whole were there.

    The processor rounds the scaled length down and crops its middle, half a pixel aside if that
    isn't even; so of the lengths that would do, the one is taken that fits best in both.
    """
    enough = 4 * -(-max(crop) // edge) * short
    enough += (long - enough) % 2
    whole = edge * long // short

    def mismatch(length: int) -> tuple[int, float]:
        scaled = edge * length // short
        return (whole - scaled) % 2, abs(scaled / length - whole / long)

    lengths = range(enough, min(long, enough + 2 * min(short, 256)) + 1, 2)
    return min(lengths, key=mismatch, default=long)


def _entries(size: object) -> dict[str, int]:
    """The entries that are set in a size of transformers, of whatever type it is."""
    if size is None or isinstance(size, int):
        return {}
    names = ("height", "width", "shortest_edge", "longest_edge", "max_height", "max_width")
    known: dict[str, Any]
    known = size if isinstance(size, dict) else {name: getattr(size, name, None) for name in names}
    return {name: known[name] for name in names if known.get(name)}


def _middle(image: PIL.Image.Image, length: int) -> PIL.Image.Image:
    """The middle `length` pixels of the longer edge."""
    width, height = image.size
    start = (max(width, height) - length) // 2
    if width > height:
        return image.crop((start, 0, start + length, height))
    return image.crop((0, start, width, start + length))


def _groups(pictures: Iterable[PIL.Image.Image]) -> Iterator[list[PIL.Image.Image]]:
    """The opened images in order, in lists of at most about `_HELD_PIXELS`."""
    group: list[PIL.Image.Image] = []
    held = 0
    for image in pictures:
        area = image.width * image.height
        if group and held + area > _HELD_PIXELS:
            yield group
            group, held = [], 0
        group.append(image)
        held += area
    if group:
        yield group


def _prepared(processor: Preparing, group: list[PIL.Image.Image]) -> Tensor:
    try:
        values: Tensor = processor(images=group, return_tensors="pt")["pixel_values"]
    except (MemoryError, RuntimeError) as error:  # what torch raises where memory ends
        sizes = " ".join(f"{image.width} x {image.height}" for image in group[:3])
        reason = " ".join(str(error).split())[:200]
        raise CorpusError(f"an image of {sizes} pixels can't be prepared ({reason})") from error
    return values
