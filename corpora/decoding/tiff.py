"""The directories of a TIFF structure, read within bounds: what EXIF and MPF blocks are made of.

Broken offsets and counts end a directory early or give nothing; nothing here raises, follows a
directory into another, or reads beyond the block (TIFF 6.0, section 2).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_ENTRIES = 4096  # of a directory that are looked at
_ENTRY_BYTES = 12
_FORMS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}
"""Types of whole numbers, as `struct` calls them."""


@dataclass(frozen=True)
class Entry:
    """An entry of a directory: its tag, the type and number of its values, where these are."""

    tag: int
    kind: int
    count: int
    at: int


@dataclass(frozen=True)
class Tiff:
    """A TIFF structure: its bytes from "II" or "MM" on, and its byte order as `struct` has it."""

    content: bytes
    order: str

    @classmethod
    def of(cls, block: object) -> "Tiff | None":
        """The structure in an EXIF or MPF block, with or without "Exif" before it."""
        if not isinstance(block, bytes | bytearray):
            return None
        while block.startswith(b"Exif\0\0"):
            block = block[6:]
        order = {b"II": "<", b"MM": ">"}.get(bytes(block[:2]))
        order = order or {b"*\0": "<", b"\0*": ">"}.get(bytes(block[2:4]))
        return None if order is None or len(block) < 10 else cls(bytes(block), order)

    @property
    def first(self) -> int:
        """Where the first directory lies, 0 if nowhere."""
        return self._number("I", 4) or 0

    def entries(self, start: int) -> Iterator[Entry]:
        """The entries of the directory at `start`, as far as they lie within the block."""
        for number in range(min(self._number("H", start) or 0, _ENTRIES)):
            at = start + 2 + _ENTRY_BYTES * number
            if at + _ENTRY_BYTES > len(self.content):
                return
            tag, kind, count = struct.unpack_from(f"{self.order}HHI", self.content, at)
            yield Entry(tag, kind, count, at + 8)

    def after(self, start: int) -> int:
        """Where the directory lies that follows the one at `start`; 0 if there is none."""
        count = self._number("H", start)
        return 0 if count is None else self._number("I", start + 2 + _ENTRY_BYTES * count) or 0

    def whole(self, entry: Entry) -> int | None:
        """The first value of an entry as a whole number; None if it is none."""
        form = _FORMS.get(entry.kind)
        return None if form is None else self._number(form, entry.at)

    def cut(self, start: int, length: int) -> bytes | None:
        """So many bytes of the block from `start` on; None if they don't all lie in it."""
        if not (start >= 0 and length > 0 and start + length <= len(self.content)):
            return None
        return self.content[start : start + length]

    def _number(self, form: str, at: int) -> int | None:
        if not 0 <= at <= len(self.content) - struct.calcsize(form):
            return None
        value: int = struct.unpack_from(f"{self.order}{form}", self.content, at)[0]
        return value
