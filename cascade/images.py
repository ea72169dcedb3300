"""Opening images: whatever a caller has (file, bytes, picture, or a way to get one) to RGB."""

import io
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from PIL import Image, ImageOps

ImageSource: TypeAlias = "Image.Image | str | Path | bytes | Callable[[], ImageSource]"
"""A picture, a file, the bytes of a file, or a function that returns one of these when asked."""

_DECODING_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error)


class UnreadableImage(ValueError):  # noqa: N818 - it reads as what it is where it's caught
    """An image that can't be opened or decoded."""


def open_image(source: ImageSource) -> Image.Image:
    """Decode an image to RGB, upright as its EXIF orientation says.

    Raises:
        UnreadableImage: there is no such file, or it doesn't decode.
        TypeError: the source isn't an `ImageSource`.
    """
    try:
        while callable(source) and not isinstance(source, Image.Image):
            source = source()
        return _upright(source)
    except (*_DECODING_ERRORS, Image.DecompressionBombError) as error:
        shown = source if isinstance(source, str | os.PathLike) else type(source).__name__
        reason = str(error).strip().split("\n")[0]
        raise UnreadableImage(f"cannot read the image {shown}: {reason}") from error


def _upright(source: ImageSource) -> Image.Image:
    if isinstance(source, Image.Image):
        return ImageOps.exif_transpose(source).convert("RGB")
    if isinstance(source, bytes | bytearray):
        source = io.BytesIO(source)
    elif not isinstance(source, str | os.PathLike):
        raise TypeError(
            "an image is a PIL.Image, a path, the bytes of a file, or a function that returns "
            f"one of these, not a {type(source).__name__}"
        )
    with Image.open(source) as image:
        return ImageOps.exif_transpose(image).convert("RGB")
