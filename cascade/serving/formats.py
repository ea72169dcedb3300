"""What kind of image some bytes are, told by the bytes and not by a name, before decoding."""

import io
from dataclasses import dataclass

from PIL import Image

from corpora.decoding import images as decoding


@dataclass(frozen=True)
class Format:
    """A kind of image file: the ending of its name, and what it is called on the web."""

    suffix: str
    media_type: str


FORMATS = {
    "AVIF": Format(".avif", "image/avif"),
    "BMP": Format(".bmp", "image/bmp"),
    "GIF": Format(".gif", "image/gif"),
    "HEIF": Format(".heic", "image/heic"),
    "JPEG": Format(".jpg", "image/jpeg"),
    "PNG": Format(".png", "image/png"),
    "TIFF": Format(".tif", "image/tiff"),
    "WEBP": Format(".webp", "image/webp"),
}
"""By Pillow's name."""


@dataclass(frozen=True)
class Looked:
    """What the header of an image file says."""

    format: Format
    pixels: int


class TooManyPixelsError(Exception):
    """An image with so many pixels that Pillow doesn't even say how many."""


def look(content: bytes) -> Looked | None:
    """What an image is; None: it is of none of these kinds.

    Raises:
        TooManyPixelsError: it has far too many pixels.
    """
    Image.init()
    known = [name for name in FORMATS if name in Image.OPEN]
    try:
        with io.BytesIO(content) as stream, Image.open(stream, formats=known) as image:
            # of several pictures in one JPEG the first is looked at
            name = "JPEG" if image.format == "MPO" else str(image.format)
            return Looked(FORMATS[name], image.width * image.height)
    except Image.DecompressionBombError as error:
        raise TooManyPixelsError from error
    except Exception:  # Pillow's decoders raise many kinds
        return _heif(content)


def _heif(content: bytes) -> Looked | None:
    if decoding.HeifImageFile is None:
        return None
    try:
        with io.BytesIO(content) as stream, decoding.HeifImageFile(stream) as image:
            return Looked(FORMATS["HEIF"], image.width * image.height)
    except Exception:  # it raises many kinds, too
        return None
