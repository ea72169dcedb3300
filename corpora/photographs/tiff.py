"""Writing TIFF directories, which EXIF and MPF blocks are made of (TIFF 6.0, section 2)."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

HEADER = b"II*\0" + struct.pack("<I", 8)
"""Little-endian, and the first directory right behind these eight bytes."""

_ASCII, _SHORT, _LONG, _RATIONAL, _UNDEFINED = 2, 3, 4, 5, 7
_ENTRY = 12  # bytes


@dataclass(frozen=True)
class Entry:
    """An entry of a directory: what it says, in the bytes of a type."""

    tag: int
    kind: int
    count: int
    content: bytes


def short(tag: int, value: int) -> Entry:
    """A whole number of 16 bits."""
    return Entry(tag, _SHORT, 1, struct.pack("<H", value))


def long(tag: int, value: int) -> Entry:
    """A whole number of 32 bits, or an offset."""
    return Entry(tag, _LONG, 1, struct.pack("<I", value))


def rational(tag: int, numerator: int, denominator: int) -> Entry:
    """A quotient."""
    return Entry(tag, _RATIONAL, 1, struct.pack("<II", numerator, denominator))


def text(tag: int, words: str) -> Entry:
    """ASCII text."""
    content = words.encode("ascii") + b"\0"
    return Entry(tag, _ASCII, len(content), content)


def undefined(tag: int, content: bytes) -> Entry:
    """Bytes that mean something to whoever knows the tag."""
    return Entry(tag, _UNDEFINED, len(content), content)


def directory(entries: Sequence[Entry], at: int, following: int = 0) -> bytes:
    """A directory and the values that don't fit into its entries.

    Its length depends on neither offset, so that directories which point to each other can be
    measured before it is known where they lie.

    Args:
        entries: in any order.
        at: where in the block it lies.
        following: where the next directory lies; 0: there is none.
    """
    table, values = [struct.pack("<H", len(entries))], b""
    behind = at + 2 + _ENTRY * len(entries) + 4
    for entry in sorted(entries, key=lambda entry: entry.tag):
        value = entry.content.ljust(4, b"\0")
        if len(value) > 4:
            offset = behind + len(values)
            values += value + b"\0" * (len(value) % 2)  # values begin on a word
            value = struct.pack("<I", offset)
        table.append(struct.pack("<HHI", entry.tag, entry.kind, entry.count) + value)
    return b"".join(table) + struct.pack("<I", following) + values
