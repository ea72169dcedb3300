"""A file's picture without its metadata, for files whose metadata keeps them from being decoded.

Pillow reads EXIF, text, colour profiles and indices of further pictures while it opens a file, and
gives up on the picture if one of them is broken or too large. Here these parts are left out of a
copy; the one thing in them that matters, the orientation, is handed on.
"""

import re
import struct
import zlib
from dataclasses import dataclass

from corpora.decoding.orientation import in_exif, in_xmp

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_PICTURE = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_TIFF_PICTURE = frozenset(
    {*range(254, 285), 292, 293, 296, *range(317, 348), *range(512, 533)} - {330}
)
_ENTRY_BYTES = 12


@dataclass(frozen=True)
class Bare:
    """A file's bytes without metadata, and the orientation that the metadata gave (1 to 8)."""

    content: bytes
    orientation: int = 1


def bare(content: bytes) -> Bare | None:
    """The file without metadata; None if it is of a kind that isn't taken apart here."""
    try:
        if content.startswith(b"\xff\xd8"):
            return _jpeg(content)
        if content.startswith(_PNG):
            return _png(content)
        if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
            return _webp(content)
        if content[:4] in (b"II*\0", b"MM\0*"):
            return _tiff(content)
        if content[4:8] == b"ftyp":
            return _heif(content)
    except (struct.error, IndexError):  # it ends within its own headers
        pass
    return None


def _jpeg(content: bytes) -> Bare:
    """Without comments and application segments, but for those that say how colours are stored."""
    kept, exif, xmp, at = [content[:2]], b"", None, 2
    while at + 4 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker == 0xFF:  # a filling byte
            at += 1
            continue
        if marker == 0xDA:  # the picture itself, up to the end
            break
        end = at + 2 + struct.unpack_from(">H", content, at + 2)[0]
        segment, body = content[at:end], content[at + 4 : end]
        if marker == 0xE1 and body.startswith(b"Exif\0\0"):
            exif += body[6:] if exif else body
        elif marker == 0xE1 and body.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
            xmp = body
        elif (not 0xE0 <= marker <= 0xEF and marker != 0xFE) or _colours(marker, body):
            kept.append(segment)
        at = end
    return Bare(b"".join([*kept, content[at:]]), in_exif(exif) or in_xmp(xmp) or 1)


def _colours(marker: int, body: bytes) -> bool:
    """Whether a segment is a JFIF or Adobe header, and a whole one."""
    if marker == 0xE0:
        return body.startswith(b"JFIF\0") and len(body) >= 14
    return marker == 0xEE and body.startswith(b"Adobe") and len(body) >= 12


def _png(content: bytes) -> Bare:
    """Only the chunks that make the picture, and of the others the orientation in eXIf or XMP."""
    kept, exif, xmp, at = [_PNG], None, None, len(_PNG)
    while at + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        end = at + 12 + length
        body = content[at + 8 : at + 8 + length]
        if kind in _PNG_PICTURE:
            kept.append(content[at:end])
        elif kind == b"eXIf":
            exif = body
        elif kind == b"iTXt" and body.startswith(b"XML:com.adobe.xmp\0\0"):
            xmp = body
        elif kind in (b"zTXt", b"tEXt") and body.startswith(b"Raw profile type exif\0"):
            exif = exif or _raw_profile(kind, body)
        at = end
    return Bare(b"".join(kept), in_exif(exif) or in_xmp(xmp) or 1)


def _raw_profile(kind: bytes, body: bytes) -> bytes | None:
    text = body.split(b"\0", 1)[1]
    if kind == b"zTXt":
        try:
            text = zlib.decompressobj().decompress(text[1:], 1 << 20)
        except zlib.error:
            return None
    digits = re.sub(rb"[^0-9a-fA-F]", b"", b"".join(text.split(b"\n")[3:]))
    return bytes.fromhex(digits[: len(digits) // 2 * 2].decode("ascii"))


def _webp(content: bytes) -> Bare | None:
    """The one picture, with its transparency; None of an animation."""
    parts: dict[bytes, bytes] = {}
    exif, xmp, at = None, None, 12
    while at + 8 <= len(content):
        kind, length = struct.unpack_from("<4sI", content, at)
        body = content[at + 8 : at + 8 + length]
        if kind == b"EXIF":
            exif = body
        elif kind == b"XMP ":
            xmp = body
        else:
            parts.setdefault(kind, body)
        at += 8 + length + length % 2
    if b"ANIM" in parts or not (b"VP8 " in parts or b"VP8L" in parts):
        return None
    chunks = [(kind, parts[kind]) for kind in (b"VP8X", b"ALPH", b"VP8 ", b"VP8L") if kind in parts]
    if chunks[0][0] == b"VP8X":  # of what it announces only transparency is still there
        flags = bytes([chunks[0][1][0] & 0x10])
        chunks[0] = (b"VP8X", flags + chunks[0][1][1:])
    body = b"".join(
        struct.pack("<4sI", kind, len(part)) + part + b"\0" * (len(part) % 2)
        for kind, part in chunks
    )
    whole = struct.pack("<4sI4s", b"RIFF", 4 + len(body), b"WEBP") + body
    return Bare(whole, in_exif(exif) or in_xmp(xmp) or 1)


def _tiff(content: bytes) -> Bare:
    """The first directory with those entries only that say how the picture is stored.

    Pillow turns the picture by the orientation among them itself.
    """
    order = "<" if content[:2] == b"II" else ">"
    (start,) = struct.unpack_from(f"{order}I", content, 4)
    (count,) = struct.unpack_from(f"{order}H", content, start)
    entries = [
        content[at : at + _ENTRY_BYTES]
        for at in range(start + 2, start + 2 + _ENTRY_BYTES * count, _ENTRY_BYTES)
    ]
    kept = [
        entry
        for entry in entries
        if len(entry) == _ENTRY_BYTES and struct.unpack(f"{order}H", entry[:2])[0] in _TIFF_PICTURE
    ]
    directory = struct.pack(f"{order}H", len(kept)) + b"".join(kept) + b"\0\0\0\0"
    patched = bytearray(content)
    patched[start : start + len(directory)] = directory
    return Bare(bytes(patched))


def _heif(content: bytes) -> Bare | None:
    """AVIF or HEIC whose EXIF is no longer announced; their orientation lies outside of it."""
    hidden = re.sub(rb"(infe.{8})Exif", rb"\1skip", content, flags=re.DOTALL)
    return Bare(hidden) if hidden != content else None
