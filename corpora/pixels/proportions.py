"""How large a picture a processor needs, and which part of it, so that no input decides the cost.

Read from the processor's settings before a file is opened: `target` says what is wanted of it
(`corpora.decoding.reads`), `shortened` is for the picture that comes out.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import PIL.Image

from corpora.decoding.reads import ENOUGH, WHOLE

LONG = 16


def different_sizes(sizes: Iterable[tuple[int, ...]]) -> ValueError | None:
    """What to raise where images of a batch come out in different sizes; None: they don't."""
    found = sorted(set(sizes))
    if len(found) < 2:
        return None
    return ValueError(f"the image processor makes images of different sizes: {found[:2]}")


@dataclass(frozen=True)
class Proportions:
    """What a processor does to the shape of a picture.

    `edge`: it makes the shorter edge this long and then keeps `crop` (height, width) of the middle.
    `box`: it squeezes the picture into this (height, width). None: it does neither.
    """

    edge: int | None = None
    crop: tuple[int, int] | None = None
    box: tuple[int, int] | None = None

    @classmethod
    def of(cls, processor: object) -> "Proportions":
        """Those of an image processor of transformers."""
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
