"""How a camera was held: the EXIF orientation of a picture, read past whatever else is broken.

Only this one tag matters to a picture, so only this one is read: a damaged thumbnail, maker note or
rational beside it costs nothing (TIFF 6.0, section 2; EXIF 2.32, section 4.6.4). Where the tag
itself is destroyed the picture stays as it is stored.
"""

import re
from dataclasses import replace

from PIL import ExifTags
from PIL.Image import Image, Transpose

from corpora.decoding.tiff import Entry, Tiff

ORIENTATION = int(ExifTags.Base.Orientation)
TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
_SAYING_SO = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")
_SHORT = 3
_WHOLE = frozenset({1, 4, 6, 8, 9})  # other types of whole numbers that it was written as
_XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')


def upright(image: Image) -> Image:
    """The decoded image, turned as its metadata says; itself if nothing is to be done."""
    turn = TURNS.get(orientation(image))
    if turn is None:
        return image
    turned = image.transpose(turn)
    for entry in _SAYING_SO:  # else it would be turned again when it's opened as a picture
        turned.info.pop(entry, None)
    return turned


def orientation(image: Image) -> int:
    """1 (as stored) to 8, from EXIF, else XMP; 1 if neither says it. Never raises.

    TIFF files are turned by Pillow while they are decoded, HEIF by its decoder.
    """
    if image.format == "TIFF":
        return 1
    info = image.info
    block = info.get("exif") or _hexadecimal(info.get("Raw profile type exif"))
    packet = info.get("XML:com.adobe.xmp") or info.get("xmp")
    return in_exif(block) or in_xmp(packet) or _set_by_hand(image, block) or 1


def in_exif(block: object) -> int | None:
    """The orientation in an EXIF block: a TIFF structure, with or without "Exif" before it."""
    tiff = Tiff.of(block)
    return None if tiff is None else orientation_in(tiff, tiff.first)


def orientation_in(tiff: Tiff, directory: int) -> int | None:
    """The orientation in one directory of a TIFF structure."""
    found = None
    for entry in tiff.entries(directory):
        if entry.tag == ORIENTATION:
            found = _value(tiff, entry) or found
    return found


def in_xmp(packet: object) -> int | None:
    """The orientation in an XMP packet, text or bytes."""
    if isinstance(packet, str):
        packet = packet.encode("utf-8", "replace")
    match = _XMP.search(packet) if isinstance(packet, bytes | bytearray) else None
    return int(match[1]) if match and 1 <= int(match[1]) <= 8 else None


def _value(tiff: Tiff, entry: Entry) -> int | None:
    """A whole number from 1 to 8 of whatever type it was written as: SHORT is the right one."""
    if entry.kind == 2:
        digit = tiff.content[entry.at : entry.at + 1]
        return int(digit) if b"1" <= digit <= b"8" else None
    kind = entry.kind if entry.kind in _WHOLE else _SHORT
    value = tiff.whole(replace(entry, kind=kind))
    return value if value is not None and 1 <= value <= 8 else None


def _hexadecimal(profile: object) -> bytes | None:
    """The EXIF block that ImageMagick writes into a PNG's text: three lines, then hexadecimal."""
    if not isinstance(profile, str):
        return None
    digits = re.sub(r"[^0-9a-fA-F]", "", "".join(profile.split("\n")[3:]))
    return bytes.fromhex(digits[: len(digits) // 2 * 2])


def _set_by_hand(image: Image, block: object) -> int | None:
    """What a program wrote into the EXIF of a picture that came without any."""
    if block:
        return None
    try:
        value = image.getexif().get(ORIENTATION)
    except Exception:  # of whatever Pillow's parser of metadata stumbles over
        return None
    return value if isinstance(value, int) and 1 <= value <= 8 else None
