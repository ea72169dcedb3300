"""A photo's file of which no more is read than its thumbnail and its identity take.

Between `reading`, which reads files whole, and `preparing`. What turns out to be needed after all,
because there is no thumbnail that will do, is read then; no byte is read twice.
"""

import io
import os
from contextlib import suppress
from dataclasses import replace
from typing import BinaryIO, cast

from cascade.photos.addresses import FileAddress, address_of
from cascade.photos.identity import HEAD, LEAST, TAIL, of_ends
from cascade.photos.reading import HELD, reason_of, unchanged_since
from cascade.stages.images import ImageSource, UnreadableImage
from cascade.storing.rows import ImageRow
from corpora import CorpusError
from corpora.decoding.files import digest_of, open_regular

_JPEG = b"\xff\xd8\xff"


def spared(row: ImageRow) -> "Spared | None":
    """The file of a row, opened; None: it is to be read whole.

    That is so of what lies in an archive or a data set, of a small file, and of one that is too
    large to be held if all of it is needed.

    Raises:
        UnreadableImage: it isn't there any more, or can't be read.
    """
    address = address_of(row.uri)
    if not isinstance(address, FileAddress) or address.member is not None:
        return None
    if row.size is None or not LEAST < row.size <= HELD:
        return None
    try:
        return Spared(row, address.path, open_regular(address.path))
    except (OSError, CorpusError) as error:
        raise UnreadableImage(reason_of(error, row)) from error


class Spared(io.RawIOBase):
    """A file that is read block by block, each when it is first asked for, and then held.

    Attributes:
        row: of the photo, with the size and time that the file had when it was opened.
    """

    def __init__(self, row: ImageRow, path: str, file: BinaryIO) -> None:
        """Take over an open file, and read its first block.

        Raises:
            OSError: it can't be read; it is closed then.
        """
        self._file = file
        try:
            found = os.fstat(self._file.fileno())
            self.row = replace(row, size=found.st_size, modified=found.st_mtime_ns, digest=None)
            self._path, self._size, self._at = path, found.st_size, 0
            self._blocks: dict[int, bytes | memoryview] = {}
            self._failed: OSError | None = None
            _advise(self._file, "POSIX_FADV_RANDOM")
            self._is_jpeg = self.read(len(_JPEG)) == _JPEG
        except BaseException:
            self.close()
            raise

    @property
    def source(self) -> ImageSource:
        """What is decoded: of a JPEG file this, of others all bytes."""
        self.seek(0)
        if self._is_jpeg:
            return {"path": self._path, "bytes": self}
        content = self.read()
        held = memoryview(content)  # in place of the blocks, so that it isn't held twice
        self._blocks = {number: held[number * HEAD :][:HEAD] for number in self._blocks}
        return {"path": self._path, "bytes": content}

    def known(self, by_thumbnail: bool) -> ImageRow:
        """The row with its digest, once the picture was decoded or couldn't be.

        Args:
            by_thumbnail: whether the picture was the thumbnail. Of a JPEG file the ends do then.

        Raises:
            UnreadableImage: some of it couldn't be read, or it was written to meanwhile.
        """
        try:
            if self._failed is not None:
                raise self._failed
            if by_thumbnail and self._is_jpeg and self._size > LEAST:
                digest = of_ends(bytes(self._block(0)), self._tail(), self._size)
            else:
                self.seek(0)
                digest = digest_of(cast(BinaryIO, self))
            unchanged_since(self._file, self.row)
        except OSError as error:
            raise UnreadableImage(reason_of(error, self.row)) from error
        return replace(self.row, digest=digest)

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go elsewhere; nothing is read."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def tell(self) -> int:
        """Where it is."""
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """So many bytes, fewer only at the end of the file."""
        left = max(0, self._size - self._at)
        end = self._at + (left if size is None or size < 0 else min(size, left))
        parts = []
        while self._at < end:
            number, start = divmod(self._at, HEAD)
            part = self._block(number)[start : start + end - self._at]
            if not part:  # it became shorter meanwhile, which `known` says
                break
            parts.append(part)
            self._at += len(part)
        return b"".join(parts)

    def close(self) -> None:
        """Close the file and let go of what was read."""
        self._file.close()
        self._blocks = {}
        super().close()

    def _block(self, number: int) -> bytes | memoryview:
        """A block of the file, read if it wasn't."""
        if number not in self._blocks:
            if number == 1:  # more than the head is needed: perhaps all of it
                _advise(self._file, "POSIX_FADV_NORMAL")
            start = number * HEAD
            self._blocks[number] = self._read(start, min(HEAD, self._size - start))
        return self._blocks[number]

    def _tail(self) -> bytes:
        """The last bytes of the file; by blocks, where these or a part of them were read."""
        start = self._size - TAIL
        if {start // HEAD, (self._size - 1) // HEAD} & self._blocks.keys():
            self.seek(start)
            return self.read(TAIL)
        return self._read(start, TAIL)

    def _read(self, start: int, length: int) -> bytes:
        try:
            self._file.seek(start)
            return self._file.read(length)
        except OSError as error:
            self._failed = error  # who decodes may take it for a broken thumbnail
            raise


def _advise(file: BinaryIO, advice: str) -> None:
    """Tell the system how a file is read: left to itself it reads ahead more than is asked for."""
    if hasattr(os, "posix_fadvise"):
        with suppress(OSError):
            os.posix_fadvise(file.fileno(), 0, 0, getattr(os, advice))
