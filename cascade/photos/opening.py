"""Opening a photo again, now or in a later process, by its `uri`."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cascade.photos.addresses import FileAddress, address_of
from cascade.photos.archives import lies_there, read_member
from cascade.photos.data_sets import has_row, image_at
from cascade.photos.identity import is_of_ends
from cascade.stages.images import ImageSource, SeenByThumbnail, UnreadableImage
from cascade.storing.rows import ImageRow
from corpora import CorpusError
from corpora.decoding.reads import Tally


def opened(row: ImageRow) -> ImageSource:
    """What a stage is given of the image of a row, whose `uri` may also be a plain path.

    Raises:
        UnreadableImage: it is gone, or another than when the row was written, as far as size and
            time of change say.
    """
    try:
        address = address_of(row.uri)
    except ValueError:
        _check_unchanged(row, row.uri)
        return row.uri
    if isinstance(address, FileAddress):
        _check_unchanged(row, address.path, size=address.member is None)
    return source_of(row.uri)


def compared(opener: Callable[[ImageRow], ImageSource], tally: Tally, row: ImageRow) -> ImageSource:
    """What an opener gives of a row; of one that the first stage knows by a thumbnail it compares.

    Args:
        opener: opens the image of a row.
        tally: counts whether thumbnails show what their pictures do: "used", or "stale".
        row: of the image.
    """
    source = opener(row)
    return SeenByThumbnail(source, tally) if is_of_ends(row.digest) else source


def source_of(uri: str) -> ImageSource:
    """What a stage is given of the image at a uri: a path, or a function that reads it.

    Raises:
        ValueError: it is no address of an image.
    """
    address = address_of(uri)
    if isinstance(address, FileAddress) and address.member is None:
        return address.path
    return Reopened(uri)


@dataclass(frozen=True)
class Reopened:
    """Reads an image that is no file of its own when it is called."""

    uri: str

    def __call__(self) -> dict[str, Any]:
        """{"path": its name, "bytes": …}; raises CorpusError or OSError."""
        address = address_of(self.uri)
        if isinstance(address, FileAddress):
            return {"path": address.member, "bytes": read_member(address)}
        return image_at(address)


def is_there(uri: str) -> bool:
    """Whether an image is still where its uri says.

    Only if its file, or its place in one, is certainly gone this is False: a folder that can't be
    read, or a data set that can't be loaded, says nothing about what is in it.
    """
    address = address_of(uri)
    try:
        if not isinstance(address, FileAddress):
            return has_row(address)
        if address.member is not None:
            return lies_there(address)
        os.stat(address.path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, CorpusError):
        return True
    return True


def _check_unchanged(row: ImageRow, path: str, size: bool = True) -> None:
    """Refuse a file that is no longer a row's; `size`: whether the row has the file's size."""
    if row.size is None and row.modified is None:
        return
    try:
        found = os.stat(path)
    except OSError as error:
        raise UnreadableImage(f"cannot read the image {path}: {error.strerror}") from error
    same = not size or row.size in (None, found.st_size)
    if not same or row.modified not in (None, found.st_mtime_ns):
        raise UnreadableImage(f"{path} has changed since it was added: add it again")
