"""What a camera writes before a picture: EXIF with a thumbnail, and an index of further pictures.

EXIF 2.32 (CIPA DC-008), sections 4.5 and 4.6; Multi-Picture Format (CIPA DC-007), section 5.
"""

import struct
from dataclasses import dataclass

from PIL import ExifTags

from corpora.photographs.tiff import (
    HEADER,
    Entry,
    directory,
    long,
    rational,
    short,
    text,
    undefined,
)

_START = b"\xff\xd8"
_MOST = 65_533
"""Bytes that a segment of a JPEG can hold."""
_JPEG = 6  # the compression of a thumbnail
_VERSION, _IMAGES, _ENTRIES = 0xB000, 0xB001, 0xB002
_PRIMARY, _LARGE_THUMBNAIL = 0x20030000, 0x40010002
_TAG = ExifTags.Base


@dataclass(frozen=True)
class Shot:
    """What a camera notes of a picture.

    Attributes:
        size: width and height as they are stored.
        orientation: 1 to 8: how the stored picture has to be turned.
        number: of the picture, from 0; its time follows from it.
        note: what only the camera's maker can read.
        thumbnail: a JPEG as it is stored, or None.
    """

    size: tuple[int, int]
    orientation: int
    number: int
    note: bytes
    thumbnail: bytes | None


def exif_segment(shot: Shot) -> bytes:
    """The EXIF of a picture as a segment of its JPEG.

    Raises:
        ValueError: note and thumbnail are too large for a segment.
    """
    return _segment(0xE1, b"Exif\0\0" + _exif_block(shot))


def index_segment(primary: int, preview: int, before: int) -> bytes:
    """The index of a JPEG that is followed by a preview, as a segment.

    Args:
        primary: bytes of the whole first JPEG, this segment included.
        preview: bytes of the second.
        before: bytes of the first JPEG before this segment.
    """
    start = before + 4 + len(b"MPF\0")  # offsets count from the index's own header
    index = b"".join(
        struct.pack("<IIIHH", kind, size, offset, 0, 0)
        for kind, size, offset in (
            (_PRIMARY, primary, 0),
            (_LARGE_THUMBNAIL, preview, primary - start),
        )
    )
    entries = [undefined(_VERSION, b"0100"), long(_IMAGES, 2), undefined(_ENTRIES, index)]
    return _segment(0xE2, b"MPF\0" + HEADER + directory(entries, len(HEADER)))


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    """A JPEG as Pillow writes it, with a camera's segments in place of its JFIF segment.

    Raises:
        ValueError: it doesn't begin with a JFIF segment.
    """
    if jpeg[:4] != _START + b"\xff\xe0":
        raise ValueError("expected a JPEG that begins with a JFIF segment")
    (length,) = struct.unpack_from(">H", jpeg, 4)
    return b"".join((_START, *segments, jpeg[4 + length :]))


def _segment(marker: int, content: bytes) -> bytes:
    if len(content) > _MOST:
        raise ValueError(f"{len(content):,} bytes don't fit into a segment of {_MOST:,}")
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def _exif_block(shot: Shot) -> bytes:
    """The directories one behind the other, the thumbnail last, as cameras order them."""
    lengths = [len(part) for part in _directories(shot, 0, 0, 0)]
    details = len(HEADER) + lengths[0]
    small = details + lengths[1]
    parts = _directories(shot, details, small, small + lengths[2])
    return b"".join((HEADER, *parts, shot.thumbnail or b""))


def _directories(shot: Shot, details: int, small: int, thumbnail: int) -> tuple[bytes, ...]:
    """Of the picture, of how it was taken, and of the thumbnail, given where the others lie."""
    main = [*_about(shot), long(_TAG.ExifOffset, details)]
    if shot.thumbnail is None:
        return directory(main, len(HEADER)), directory(_taken(shot), details), b""
    of_thumbnail = [
        short(_TAG.Compression, _JPEG),
        *_resolution(),
        long(_TAG.JpegIFOffset, thumbnail),
        long(_TAG.JpegIFByteCount, len(shot.thumbnail)),
    ]
    return (
        directory(main, len(HEADER), following=small),
        directory(_taken(shot), details),
        directory(of_thumbnail, small),
    )


def _about(shot: Shot) -> list[Entry]:
    return [
        text(_TAG.Make, "clip-cascade"),
        text(_TAG.Model, "made of a smaller picture"),
        short(_TAG.Orientation, shot.orientation),
        *_resolution(),
        text(_TAG.DateTime, _time(shot.number)),
    ]


def _resolution() -> list[Entry]:
    """72 pixels an inch, which EXIF has one write where nothing is known."""
    return [
        rational(_TAG.XResolution, 72, 1),
        rational(_TAG.YResolution, 72, 1),
        short(_TAG.ResolutionUnit, 2),
    ]


def _taken(shot: Shot) -> list[Entry]:
    width, height = shot.size
    return [
        rational(_TAG.ExposureTime, 1, 125),
        rational(_TAG.FNumber, 28, 10),
        short(_TAG.ISOSpeedRatings, 200),
        undefined(_TAG.ExifVersion, b"0232"),
        text(_TAG.DateTimeOriginal, _time(shot.number)),
        undefined(_TAG.MakerNote, shot.note),
        short(_TAG.ColorSpace, 1),
        long(_TAG.ExifImageWidth, width),
        long(_TAG.ExifImageHeight, height),
    ]


def _time(number: int) -> str:
    """A picture a minute, from a morning on, so that a file is the same each time it is made."""
    days, minutes = divmod(number, 24 * 60)
    months, day = divmod(days, 28)
    years, month = divmod(months, 12)
    clock = f"{minutes // 60:02d}:{minutes % 60:02d}:00"
    return f"{2020 + years % 8000}:{month + 1:02d}:{day + 1:02d} {clock}"
