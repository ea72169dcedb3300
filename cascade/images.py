"""Opening images: whatever a caller has (file, bytes, picture, or a way to get one) to RGB."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from PIL import Image

import corpora

ImageSource: TypeAlias = "Image.Image | str | Path | bytes | Callable[[], ImageSource]"
"""A picture, a file, the bytes of a file, or a function that returns one of these when asked."""


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
    except OSError as error:
        raise UnreadableImage(f"cannot read an image: {error}") from error
    if not isinstance(source, Image.Image | bytes | bytearray | str | os.PathLike):
        raise TypeError(
            "an image is a PIL.Image, a path, the bytes of a file, or a function that returns "
            f"one of these, not a {type(source).__name__}"
        )
    try:
        return corpora.open_image(bytes(source) if isinstance(source, bytearray) else source)
    except corpora.CorpusError as error:
        raise UnreadableImage(f"cannot read the image {error}") from error
