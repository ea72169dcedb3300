"""The decoders that may take a small JPEG file in Pillow's place, and which of them does.

Pillow reads a file's metadata in Python and goes through several layers to its decoder, which for a
file of 500 pixels takes up to a quarter of the time. A decoder that is called alone is used by
itself where it is installed, as long as it gives Pillow's own pixels: that is tried once, on files
of every kind that it would be given, in the libraries that are there.
"""

import importlib
import itertools
import logging
from collections.abc import Callable, Iterator
from functools import cache
from io import BytesIO
from typing import TypeAlias

import numpy as np
import PIL.Image

_logger = logging.getLogger(__name__)

INSTALL_JPEG = "pip install 'clip-cascade[jpeg]'"

Decoder: TypeAlias = Callable[[bytes, tuple[int, int], int], np.ndarray]
"""(a file, its width and height, 1, 2, 4 or 8) → uint8 [height, width, 3], divided by so much and
rounded up. It raises on whatever isn't a whole, faultless file."""


def scaled(size: tuple[int, int], by: int) -> tuple[int, int]:
    """Width and height of a picture that is decoded at 1/`by`."""
    return -(-size[0] // by), -(-size[1] // by)


def _simplejpeg() -> Decoder:
    """libjpeg-turbo through simplejpeg; raises ImportError where that isn't installed."""
    decode = importlib.import_module("simplejpeg").decode_jpeg

    def decoded(content: bytes, size: tuple[int, int], by: int) -> np.ndarray:
        width, height = scaled(size, by)
        pixels: np.ndarray = decode(content, "RGB", False, False, height, width, by)
        return pixels

    return decoded


_TABLE: dict[str, Callable[[], Decoder]] = {"simplejpeg": _simplejpeg}
"""How to get each decoder by its name; the first that will do is used."""


@cache
def decoder() -> tuple[str, Decoder] | None:
    """The decoder that is used and its name; None: Pillow does everything."""
    for name, get in _TABLE.items():
        try:
            found = get()
        except ImportError:
            _logger.debug("small JPEG files open faster with %s: %s", name, INSTALL_JPEG)
            continue
        if all(_agrees(found, *asked) for asked in _tried()):
            return name, found
        _logger.warning("%s isn't used: it gives other pixels than Pillow", name)
    return None


def _agrees(decode: Decoder, content: bytes, by: int) -> bool:
    """Whether a decoder gives of a file what Pillow gives."""
    with PIL.Image.open(BytesIO(content), formats=["JPEG"]) as image:
        size = image.size
        image.draft(None, (size[0] // by, size[1] // by))
        expected = np.asarray(image.convert("RGB"))
    try:
        return np.array_equal(decode(content, size, by), expected)
    except Exception:  # of a release that is called in another way
        return False


def _tried() -> Iterator[tuple[bytes, int]]:
    """Files on which a decoder must agree with Pillow, and by how much each is divided."""
    noise = np.random.default_rng(0).integers(0, 256, (43, 61, 3), dtype=np.uint8)
    picture = PIL.Image.fromarray(noise)
    colours = [(picture, 0), (picture, 1), (picture, 2), (picture.convert("L"), 0)]
    for (image, subsampling), progressive in itertools.product(colours, (False, True)):
        with BytesIO() as stream:
            image.save(stream, "JPEG", progressive=progressive, subsampling=subsampling)
            content = stream.getvalue()
        yield from ((content, by) for by in (1, 2, 4, 8))
