"""What a JPEG file says of itself before its picture begins: its size, how it is turned.

Only files of the ordinary kinds are read here, so that whoever knows a head knows what any decoder
makes of the file; of all others nothing is said (ITU-T T.81, Annex B).
"""

from dataclasses import dataclass

_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_START_OF_SCAN = 0xDA
_TABLES, _CODES = 0xDB, 0xC4
_EXTENDED, _PROGRESSIVE = 0xC1, 0xC2
_FRAMES = {0xC0, _EXTENDED, _PROGRESSIVE}  # of Huffman-coded pictures, the first baseline
_PASSED = {_CODES, 0xDD, 0xFE}  # Huffman tables, restart intervals, comments
_APPLICATIONS = range(0xE0, 0xF0)
_WHOLE = {0xE0: (b"JFIF", 14), 0xEE: (b"Adobe", 12)}
"""Segments that say how colours are stored, and how long they must be to say it."""


@dataclass(frozen=True)
class Frame:
    """What a file's frame says of its picture.

    Attributes:
        size: width and height in pixels.
        layers: the name and the sampling factors of each: one of grey, three of colours.
        progressive: whether the picture comes in several scans, each of which refines it.
        extended: whether it is sequential, but not bound to what the baseline allows.
    """

    size: tuple[int, int]
    layers: tuple[tuple[int, int], ...]
    progressive: bool
    extended: bool


@dataclass(frozen=True)
class Head:
    """What a file says before its picture.

    Attributes:
        frame: of the picture.
        exif: its EXIF block, None if there is none.
        xmp: its XMP block, likewise.
        indexed: whether it names further pictures (MPF).
        adobe: the transform that an Adobe segment gives for the colours; None: there is none.
        scan: where the first scan begins, in bytes.
    """

    frame: Frame
    exif: bytes | None
    xmp: bytes | None
    indexed: bool
    adobe: int | None
    scan: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.frame.size


def head_of(content: bytes) -> Head | None:
    """The head of a JPEG file of 8 bits in grey or three colours; None of any other.

    Args:
        content: the file, or as much of its beginning as is there.
    """
    frame, found, indexed, adobe, at = None, {_EXIF: b"", _XMP: b""}, False, None, 2
    missing = {_TABLES, _CODES}  # a file without its own may get another's
    while at + 4 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        if marker == _START_OF_SCAN:
            exif, xmp = found[_EXIF] or None, found[_XMP] or None
            if frame is None or missing:
                return None
            return Head(frame, exif, xmp, indexed, adobe, at)
        body = content[at + 4 : end]
        if end < at + 4 or end > len(content):
            return None
        if marker in _FRAMES and frame is None:
            frame = _frame(marker, body)
            if frame is None:
                return None
        elif marker in _APPLICATIONS:
            if not _is_whole(marker, body) or _kept(marker, body, found):
                return None
            indexed = indexed or (marker == 0xE2 and body.startswith(b"MPF\0"))
            if marker == 0xEE and body.startswith(b"Adobe"):
                adobe = body[11]
        elif marker not in _PASSED and not (marker == _TABLES and _are_tables(body)):
            return None
        missing.discard(marker)
        at = end
    return None


def _frame(marker: int, body: bytes) -> Frame | None:
    """What a frame says; None if it isn't of 8 bits in one or three layers."""
    if len(body) < 6 or body[0] != 8 or body[5] not in (1, 3) or len(body) != 6 + 3 * body[5]:
        return None
    height, width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
    if not (width and height):
        return None
    layers = tuple((body[at], body[at + 1]) for at in range(6, len(body), 3))
    return Frame((width, height), layers, marker == _PROGRESSIVE, marker == _EXTENDED)


def _are_tables(body: bytes) -> bool:
    """Whether a segment holds quantisation tables, the last one to its end."""
    at = 0
    while at < len(body):
        at += 1 + (64 if body[at] < 16 else 128)
    return at == len(body)


def _is_whole(marker: int, body: bytes) -> bool:
    name, length = _WHOLE.get(marker, (b"", 0))
    return not body.startswith(name) or len(body) >= length


def _kept(marker: int, body: bytes, found: dict[bytes, bytes]) -> bool:
    """Keep EXIF or XMP; True if there was one already: several together say one thing."""
    if marker == 0xE1:
        for name in found:
            if body.startswith(name):
                if found[name]:
                    return True
                found[name] = body
    return False
