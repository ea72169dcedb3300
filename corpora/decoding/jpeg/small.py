"""A small JPEG file decoded by a decoder that is called alone: the same picture, sooner.

What isn't an ordinary file, of ordinary size and without fault, is left to Pillow, which then says
what is wrong with it.
"""

from typing import BinaryIO

import PIL.Image

from corpora.decoding.embedded import exif_thumbnail
from corpora.decoding.jpeg.decoders import decoder, scaled
from corpora.decoding.jpeg.head import Head, head_of
from corpora.decoding.orientation import TURNS, in_exif, in_xmp
from corpora.decoding.sizes import LARGE, divisor_of

_HEAD = 1 << 12  # bytes, which hold the head of a file without an embedded picture
_BLOCK = 1 << 16  # bytes, which hold many a small file
_MOST = 1 << 24
_START = b"\xff\xd8\xff"


def small_jpeg(
    stream: BinaryIO, at_least: int | None, embedded: bool = False
) -> PIL.Image.Image | None:
    """A JPEG file's picture, upright RGB, as `open_image` gives it; None: Pillow is to open it.

    Args:
        stream: the file, at its beginning; where None comes back, at its beginning again.
        at_least: as for `open_image`.
        embedded: whether a picture embedded in the file is wanted, if there is any: no more than a
            head is read then of a file that may hold one.
    """
    found = decoder()
    if found is None:
        return None
    whole = _whole(stream, embedded)
    if whole is not None:
        content, head = whole
        divisor = divisor_of(head.size, at_least)
        by = min(8, divisor)
        size = scaled(head.size, by)
        try:
            pixels = found[1](content, head.size, by)
        except Exception:  # a fault in the file, which Pillow may see past
            pixels = None
        if pixels is not None and pixels.shape == (size[1], size[0], 3):
            picture = PIL.Image.frombuffer("RGB", size, pixels, "raw", "RGB", 0, 1)
            turn = TURNS.get(in_exif(head.exif) or in_xmp(head.xmp) or 1)
            picture = picture if turn is None else picture.transpose(turn)
            rest = divisor_of(size, at_least)
            return picture.reduce(rest) if rest > 1 else picture
    stream.seek(0)
    return None


def _whole(stream: BinaryIO, embedded: bool) -> tuple[bytes, Head] | None:
    """All bytes of a small file, and its head; None if it isn't one."""
    content = stream.read(_HEAD)
    if not content.startswith(_START):
        return None
    head = head_of(content)
    if head is None and not embedded and len(content) == _HEAD:
        content += stream.read(_BLOCK - _HEAD)
        head = head_of(content)
    if head is None or head.size[0] * head.size[1] > LARGE:
        return None
    if embedded and (head.indexed or exif_thumbnail(head.exif) is not None):
        return None
    if len(content) < _BLOCK:
        content += stream.read(_BLOCK - len(content))
    if len(content) == _BLOCK:
        content += stream.read(_MOST - _BLOCK)
    return (content, head) if len(content) < _MOST else None
