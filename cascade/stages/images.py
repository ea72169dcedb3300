"""Opening images: whatever a caller has (file, bytes, picture, or a way to get one) to RGB."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from PIL import Image

import corpora
from corpora.decoding.jpeg.head import Frame
from corpora.decoding.jpeg.whole import JpegFile, read_jpeg
from corpora.decoding.reads import Reads, Tally
from corpora.decoding.thumbnails import shows_same

ImageSource: TypeAlias = (
    "Image.Image | str | Path | bytes | dict[str, Any] | Callable[[], ImageSource]"
)
"""A picture, a file, the bytes of a file, or a function that returns one of these when asked.

A dict is what a corpus with undecoded images gives: {"path": …, "bytes": …}. Its "bytes" may also
be an open file.
"""
_COMPARED = 64  # pixels that a thumbnail is asked for to be compared by coarse means


class UnreadableImage(corpora.CorpusError):
    """An image that can't be opened or decoded."""


@dataclass(frozen=True)
class SeenByThumbnail:
    """An image whose thumbnail a first stage took for it: who opens the picture itself compares.

    Attributes:
        source: the image.
        tally: counts thumbnails that show the same ("used") and those that don't ("stale").
    """

    source: ImageSource
    tally: Tally

    def __call__(self) -> ImageSource:
        """The image."""
        return self.source

    def compare(self, picture: Image.Image) -> None:
        """Count whether the thumbnail shows what the picture does, if there still is one."""
        own = Tally()
        try:
            thumbnail = open_image(self.source, _COMPARED, "thumbnail", own)
        except UnreadableImage:  # it vanished just now
            return
        if "used" in own.counts:
            self.tally.add("used" if shows_same(thumbnail, picture) else "stale")


def open_image(
    source: ImageSource,
    at_least: int | None = None,
    reads: Reads = "full",
    tally: Tally | None = None,
) -> Image.Image:
    """Decode an image to RGB, upright as its EXIF orientation says.

    Args:
        source: what to open.
        at_least: pixels wanted of the shorter edge, as in `corpora.open_image`.
        reads: how much of a file is read, likewise.
        tally: counts what came of looking for a thumbnail.

    Raises:
        UnreadableImage: there is no such file, it doesn't decode, it has too many pixels, or the
            function that was to give it failed; the message says which.
        TypeError: the source isn't an `ImageSource`.
    """
    comparing: SeenByThumbnail | None = None
    try:
        for given in _given(source):
            if isinstance(given, SeenByThumbnail) and reads != "thumbnail":
                comparing = given
    except Exception as error:  # of any kind: only this one image is lost
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImage(f"cannot read an image: {reason}") from error
    if not isinstance(given, Image.Image | bytes | bytearray | str | os.PathLike | dict):
        raise TypeError(
            "an image is a PIL.Image, a path, the bytes of a file, or a function that returns "
            f"one of these, not a {type(given).__name__}"
        )
    try:
        content = bytes(given) if isinstance(given, bytearray) else given
        picture = corpora.open_image(content, at_least, reads, tally)
    except corpora.CorpusError as error:
        raise UnreadableImage(f"cannot read the image {error}") from error
    if comparing is not None:
        comparing.compare(picture)
    return picture


def jpeg_file(
    source: ImageSource, takes: Callable[[Frame], bool]
) -> tuple[ImageSource, JpegFile | None]:
    """A JPEG file that is to be decoded elsewhere than on the CPU, if the source is one.

    None, for `open_image` to open it, of all that is wrong, which that one says, and of what is
    compared with its thumbnail.

    Args:
        source: what to read.
        takes: whether pictures of this kind are decoded there.

    Returns:
        What to open if need be: functions were asked for theirs already, if they gave any.
    """
    given = source
    try:
        for given in _given(source):
            if isinstance(given, SeenByThumbnail):
                return source, None
    except Exception:  # whatever the function raises that was to give the image
        return source, None
    content = bytes(given) if isinstance(given, bytearray) else given
    if not isinstance(content, bytes | str | Path | dict):
        return given, None
    return given, read_jpeg(content, takes)


def _given(source: ImageSource) -> Iterator[ImageSource]:
    """A source, and while it is a function what it gives; the last one is none."""
    yield source
    while callable(source) and not isinstance(source, Image.Image):
        source = source()
        yield source
