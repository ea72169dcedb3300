"""A JPEG file read as a whole and checked, for a decoder that takes many files at a time.

Such a decoder, on a GPU, says nothing of a file that is cut off: where its data end it leaves what
another file left there. So whether a file goes on to its end is seen here, from its markers alone;
of one that is damaged within, or was closed after it was cut off, they say nothing. Whatever isn't
an ordinary file is left to `images.open_image`, which says what is wrong with it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from corpora.decoding.jpeg.head import Frame, Head, head_of
from corpora.decoding.orientation import in_exif, in_xmp
from corpora.decoding.raw import RAW_SUFFIXES
from corpora.decoding.sources import Source, naming, path_of, stream_of, suffix_of
from corpora.decoding.watching import counted
from corpora.problems import CorpusError

MAX_PIXELS = 64_000_000
"""Of a picture that is decoded as a whole on a device."""
_MAX_BYTES = 64_000_000
_START = b"\xff\xd8\xff"
_HEAD = 1 << 16
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # that is no restart, nor among the data
_END = 0xD9
_BETWEEN_SCANS = frozenset({0xC4, 0xDA, 0xDD})  # Huffman tables, scans, restart intervals
_COLOURS = (1, 2, 3)  # what layers are called where they are luminance and two of colour


@dataclass(frozen=True)
class JpegFile:
    """A whole JPEG file.

    Attributes:
        content: its bytes, to the end of its picture.
        frame: of its picture.
        orientation: as its metadata give it, 1 to 8: how the decoded picture is to be turned.
        path: its name, for messages; None: it has none.
    """

    content: bytes
    frame: Frame
    orientation: int
    path: str | None = None


def read_jpeg(
    source: Source, takes: Callable[[Frame], bool] = lambda frame: True
) -> JpegFile | None:
    """Read a JPEG file; None if it isn't one that a decoder on a device gives right.

    None too of whatever can't be read: `images.open_image` says why.

    Args:
        source: as `images.open_image` takes it, but not decoded.
        takes: whether the decoder takes pictures of this kind; of others only the head is read.
    """
    if suffix_of(source) in RAW_SUFFIXES:
        return None
    try:
        with counted(), naming(source), stream_of(source) as stream:
            content = stream.read(_HEAD)
            if not content.startswith(_START):
                return None
            head = head_of(content)
            if head is None or not (_fits(head) and takes(head.frame)):
                return None
            content += stream.read(_MAX_BYTES - len(content))
    except CorpusError:
        return None
    end = end_of(content, head)
    if end is None:
        return None
    turned = in_exif(head.exif) or in_xmp(head.xmp) or 1
    return JpegFile(content[:end], head.frame, turned, path_of(source))


def _fits(head: Head) -> bool:
    """Whether a picture is of a size to be decoded as a whole, of the usual kind and colours."""
    width, height = head.size
    named = tuple(name for name, _ in head.frame.layers)
    usual = len(named) == 1 or (named == _COLOURS and head.adobe != 0)
    return usual and not head.frame.extended and width * height <= MAX_PIXELS


def end_of(content: bytes, head: Head) -> int | None:
    """Where a file's picture ends; None if the file ends before, or holds what is no picture.

    Args:
        content: the file.
        head: of the file.
    """
    at, marker = head.scan, 0xDA
    while marker != _END:
        if marker not in _BETWEEN_SCANS or at + 5 > len(content):
            return None
        whole = at == head.scan and content[at + 4] == len(head.frame.layers)
        if marker == 0xDA and not (whole or head.frame.progressive):
            return None  # layers in scans of their own, which not every decoder takes
        found = _MARKER.search(content, at + 2 + int.from_bytes(content[at + 2 : at + 4], "big"))
        if found is None:
            return None
        at, marker = found.start(), found[0][1]
    return at + 2
