"""Giving out images of a collection and thumbnails of them, and nothing else.

An image is given out by its number only. Its bytes are read first, through one file handle, and
compared with what the row says of them: by their digest (and the time of change, if it is of their
ends alone), or where a row has none by size and time of change. So whatever lies at the path by
now, a link to another file for instance, is not given out.
"""

import io
import os
import re
from dataclasses import dataclass, replace

from cascade.collecting.offers import is_unchanged
from cascade.collection import Collection
from cascade.photos.addresses import FileAddress, address_of, uri_of_file
from cascade.photos.identity import digest_like, is_of_ends
from cascade.photos.reading import read
from cascade.serving.formats import FORMATS, Format, TooManyPixelsError, look
from cascade.serving.work import RefusedError
from cascade.stages.images import UnreadableImage, open_image
from cascade.storing.rows import ImageRow

_OTHER = Format(".bin", "application/octet-stream")
_QUALITY = 85


@dataclass(frozen=True)
class Picture:
    """The bytes of an image file, what kind it is, and a name that is safe to save it under."""

    content: bytes
    media_type: str
    name: str


class Pictures:
    """The images of a collection, by their numbers."""

    def __init__(self, collection: Collection, longest: int) -> None:
        """Give out those of a collection whose files have at most `longest` bytes."""
        self._collection = collection
        self._longest = longest

    def row(self, number: int) -> ImageRow:
        """The row of an image.

        Raises:
            RefusedError: there is no such image.
        """
        row = self._collection.row_of(number)
        if row is None:
            raise RefusedError(404, f"there is no image {number}")
        return row

    def image(self, number: int) -> Picture:
        """The file of an image, as it was when it was indexed.

        Raises:
            RefusedError: there is no such image, or its file is gone, changed or too large.
        """
        content, row = self._content(number)
        kind = _kind(content)
        return Picture(content, kind.media_type, _safe_name(row.key, kind.suffix))

    def thumbnail(self, number: int, size: int) -> Picture:
        """An upright JPEG of an image, whose longer edge has at most `size` pixels.

        Raises:
            RefusedError: as of `image`, or it can't be decoded.
        """
        content, row = self._content(number)
        try:
            image = open_image({"path": row.uri, "bytes": content}, at_least=size)
        except UnreadableImage as error:
            raise RefusedError(409, f"image {number} can't be decoded any more") from error
        image.thumbnail((size, size))
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=_QUALITY)
        kind = FORMATS["JPEG"]
        return Picture(stream.getvalue(), kind.media_type, _safe_name(row.key, kind.suffix))

    def source(self, number: int) -> dict[str, object]:
        """An image as an example to search with.

        Raises:
            RefusedError: as of `image`.
        """
        content, row = self._content(number)
        return {"path": row.uri, "bytes": content}

    def _content(self, number: int) -> tuple[bytes, ImageRow]:
        """The bytes of an image, and its row."""
        row = self.row(number)
        self._check_size(number, row)
        try:
            found = read(replace(row, uri=_uri(row.uri)))
        except UnreadableImage as error:
            raise RefusedError(410, f"image {number} is no longer where it was indexed") from error
        now = found.row
        content = found.source.get("bytes") if isinstance(found.source, dict) else None
        if is_of_ends(row.digest) and isinstance(content, bytes):
            now = replace(now, digest=digest_like(row.digest, io.BytesIO(content)))
        if not is_unchanged(now, row):
            raise RefusedError(409, f"image {number} has changed since it was indexed")
        if not isinstance(content, bytes) or len(content) > self._longest:
            raise self._too_large(number)
        return content, row

    def _check_size(self, number: int, row: ImageRow) -> None:
        """Refuse a large file before it is read."""
        if row.size is not None and row.size > self._longest:
            raise self._too_large(number)
        try:
            address = address_of(_uri(row.uri))
            if not isinstance(address, FileAddress) or address.member is not None:
                return
            size = os.stat(address.path).st_size
        except (OSError, ValueError):  # reading it says what is wrong
            return
        if size > self._longest:
            raise self._too_large(number)

    def _too_large(self, number: int) -> RefusedError:
        return RefusedError(
            409, f"image {number} is larger than the {self._longest:,} bytes that are given out"
        )


def _uri(uri: str) -> str:
    """The address of an image whose row may have a plain path."""
    try:
        address_of(uri)
    except ValueError:
        return uri_of_file(os.path.abspath(uri))
    return uri


def _kind(content: bytes) -> Format:
    """By what the bytes are, whatever the file is called."""
    try:
        looked = look(content)
    except TooManyPixelsError:
        return _OTHER
    return _OTHER if looked is None else looked.format


def _safe_name(key: str, suffix: str) -> str:
    """A name of a file that says what the file is, whatever its key has in it."""
    last = re.split(r"[/\\#]", key)[-1]
    stem = re.sub(r"[^A-Za-z0-9._ -]+", "_", last.rpartition(".")[0] or last).strip(" .")
    return f"{stem[:80] or 'image'}{suffix}"
