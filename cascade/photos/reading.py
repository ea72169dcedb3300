"""Reading a photo's bytes once, for its digest and its picture, and preparing it for a stage."""

import os
import threading
from contextlib import nullcontext
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any, BinaryIO

from cascade.photos.addresses import FileAddress, address_of
from cascade.photos.identity import digest_like, is_of_ends
from cascade.photos.opening import source_of
from cascade.stages.images import ImageSource, UnreadableImage
from cascade.storing.rows import ImageRow
from corpora import CorpusError
from corpora.decoding.files import digest_of, open_regular

HELD = 64_000_000
"""Bytes of a file up to which it is held while it is decoded; a larger one is read twice."""
_LARGE = 16_000_000
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class Read:
    """A photo whose bytes were read: its row with digest, size and time, and what is decoded."""

    row: ImageRow
    source: ImageSource


def read(row: ImageRow) -> Read:
    """Read the photo of a row.

    Raises:
        UnreadableImage: it isn't there any more, can't be read, or is written to meanwhile.
    """
    address = address_of(row.uri)
    try:
        if isinstance(address, FileAddress) and address.member is None:
            return _read_file(row, address.path)
        source = source_of(row.uri)
        image: Any = source() if callable(source) else source
        if image.get("bytes") is None:
            return _read_file(row, image["path"])
        content: bytes = image["bytes"]
        digest = digest_of(BytesIO(content))
        return Read(replace(row, size=len(content), digest=digest), image)
    except (OSError, CorpusError) as error:
        raise UnreadableImage(reason_of(error, row)) from error


def digest_at(row: ImageRow, known: str | None = None) -> str | None:
    """The digest of a photo's bytes; None if they can't be read.

    Args:
        row: of the photo.
        known: a digest that it is to be compared with: it is of the same kind; None: of all bytes.
    """
    address = address_of(row.uri)
    try:
        if isinstance(address, FileAddress) and address.member is None:
            with open_regular(address.path) as file:
                return digest_like(known, file)
        if is_of_ends(known):  # only files of their own are known so
            return None
        return read(row).row.digest
    except (OSError, CorpusError):
        return None


def reason_of(error: BaseException, row: ImageRow) -> str:
    """Why an image is skipped, in words, without its name, which stands beside it."""
    if isinstance(error, OSError):
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            return "file that isn't there"
        return error.strerror or type(error).__name__
    text = " ".join(str(error).split()) or type(error).__name__
    address = address_of(row.uri)
    names = [row.key, row.uri]
    if isinstance(address, FileAddress):
        names += [address.member or "", address.path]
    for before in ("cannot read the image ", "cannot read an image: "):
        text = text.removeprefix(before)
    for name in filter(None, names):
        text = text.removeprefix(f"{name}: ")
    return text


def _read_file(row: ImageRow, path: str) -> Read:
    """Read an ordinary file; its size and time are those that it had when it was opened."""
    with open_regular(path) as file:
        found = os.fstat(file.fileno())
        with _ONE_AT_A_TIME if found.st_size > _LARGE else nullcontext():
            digest, source = _content(file, path, found.st_size)
        row = replace(row, size=found.st_size, modified=found.st_mtime_ns, digest=digest)
        unchanged_since(file, row)
    return Read(row, source)


def unchanged_since(file: BinaryIO, row: ImageRow) -> None:
    """Raise `UnreadableImage` if an open file has no longer the size and time of a row."""
    found = os.fstat(file.fileno())
    if (row.size, row.modified) != (found.st_size, found.st_mtime_ns):
        raise UnreadableImage("file that was written to while it was read")


def _content(file: Any, path: str, size: int) -> tuple[str, ImageSource]:
    """The digest of a file, and its bytes or, of a large one, its path."""
    if size > HELD:
        return digest_of(file), path
    content = file.read()
    return digest_of(BytesIO(content)), {"path": path, "bytes": content}
