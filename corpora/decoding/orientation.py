"""How a camera was held: the EXIF orientation of a picture, read past whatever else is broken.

Only this one tag matters to a picture, so only this one is read: a damaged thumbnail, maker note or
rational beside it costs nothing (TIFF 6.0, section 2; EXIF 2.32, section 4.6.4). Where the tag
itself is destroyed the picture stays as it is stored.
"""

import re
import struct

from PIL import ExifTags
from PIL.Image import Image, Transpose

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
_ENTRIES = 4096  # of a directory that are looked at
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
    if not isinstance(block, bytes | bytearray):
        return None
    while block.startswith(b"Exif\0\0"):
        block = block[6:]
    order = {b"II": "<", b"MM": ">"}.get(bytes(block[:2]))
    order = order or {b"*\0": "<", b"\0*": ">"}.get(bytes(block[2:4]))
    if order is None or len(block) < 10:
        return None
    (start,) = struct.unpack_from(f"{order}I", block, 4)
    if start + 2 > len(block):
        return None
    (count,) = struct.unpack_from(f"{order}H", block, start)
    found = None
    for entry in range(min(count, _ENTRIES)):
        at = start + 2 + 12 * entry
        if at + 12 > len(block):
            break
        tag, kind = struct.unpack_from(f"{order}HH", block, at)
        if tag == ORIENTATION:
            found = _value(block, order, kind, at + 8) or found
    return found


def in_xmp(packet: object) -> int | None:
    """The orientation in an XMP packet, text or bytes."""
    if isinstance(packet, str):
        packet = packet.encode("utf-8", "replace")
    match = _XMP.search(packet) if isinstance(packet, bytes | bytearray) else None
    return int(match[1]) if match and 1 <= int(match[1]) <= 8 else None


def _value(block: bytes | bytearray, order: str, kind: int, at: int) -> int | None:
    """A whole number from 1 to 8 of whatever type it was written as: SHORT is the right one."""
    if kind == 2 and block[at : at + 1].isdigit():
        return int(block[at : at + 1]) if b"1" <= block[at : at + 1] <= b"8" else None
    form = {1: "B", 4: "I", 6: "b", 8: "h", 9: "i"}.get(kind, "H")
    (value,) = struct.unpack_from(f"{order}{form}", block, at)
    return value if 1 <= value <= 8 else None


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
