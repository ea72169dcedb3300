"""By how much a picture can be scaled down while it is decoded, and having it decoded so."""

import PIL.Image

LARGE = 4_000_000
"""Pixels of a picture above which it is decoded alone, and decoding takes all the time."""


def divisor_of(size: tuple[int, int], at_least: int | None) -> int:
    """The power of two by which a picture can be divided and its shorter edge still suffice."""
    if at_least is None:
        return 1
    return 1 << max(0, (min(size) // max(1, at_least)).bit_length() - 1)


def draft(image: PIL.Image.Image, by: int) -> None:
    """Have a JPEG decoded at 1/2, 1/4 or 1/8: in the cosine transform, with a part of the work."""
    image.draft(None, (max(1, image.width // by), max(1, image.height // by)))
