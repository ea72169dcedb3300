"""Where a file says that smaller pictures of it lie: its EXIF thumbnail, its MPF previews.

Only positions are read here, within bounds; whether there is a picture, and of what, is seen where
it is decoded (`thumbnails`). Sources: EXIF 2.32, section 4.5.7; CIPA DC-007, section 5.2.3.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from corpora.decoding.tiff import Tiff

_OFFSET, _LENGTH = 0x201, 0x202  # of the thumbnail, in the second directory of EXIF
_INDEX = 0xB002  # of the pictures in an MPF file
_INDEX_BYTES = 16
_LARGE_THUMBNAIL = 0x01  # the class of an MPF picture: not a gain map, a disparity or a panorama
_PICTURES = 64  # of an index that are looked at
_MAX_BYTES = 32_000_000  # of a preview


@dataclass(frozen=True)
class Thumbnail:
    """The bytes of an EXIF thumbnail, and the directory that names it."""

    content: bytes
    tiff: Tiff
    directory: int


@dataclass(frozen=True)
class Place:
    """Where a preview lies in its file."""

    start: int
    length: int


def exif_thumbnail(block: object) -> Thumbnail | None:
    """The thumbnail in an EXIF block; None if there is none, or not all of it."""
    tiff = Tiff.of(block)
    directory = tiff.after(tiff.first) if tiff and tiff.first else 0
    if tiff is None or not directory:
        return None
    said = {
        entry.tag: tiff.whole(entry)
        for entry in tiff.entries(directory)
        if entry.tag in (_OFFSET, _LENGTH)
    }
    content = tiff.cut(said.get(_OFFSET) or 0, said.get(_LENGTH) or 0)
    return None if content is None else Thumbnail(content, tiff, directory)


def mpf_previews(block: object, base: object) -> Iterator[Place]:
    """The previews that an MPF block names, the smallest file first.

    Args:
        block: from its byte order on.
        base: where that lies in the file, which positions are counted from.
    """
    tiff = Tiff.of(block)
    if tiff is None or not isinstance(base, int):
        return
    found = []
    for entry in tiff.entries(tiff.first):
        if entry.tag != _INDEX:
            continue
        (start,) = struct.unpack_from(f"{tiff.order}I", tiff.content, entry.at)
        for number in range(min(entry.count // _INDEX_BYTES, _PICTURES)):
            record = tiff.cut(start + _INDEX_BYTES * number, _INDEX_BYTES)
            if record is None:
                break
            kind, length, offset = struct.unpack_from(f"{tiff.order}III", record)
            if (kind >> 16) & 0xFF == _LARGE_THUMBNAIL and offset and 0 < length <= _MAX_BYTES:
                found.append(Place(base + offset, length))
    yield from sorted(found, key=lambda place: place.length)
