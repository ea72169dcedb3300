"""Opening the images of a collection again: whoever changed since is not who was added."""

import os

from cascade.images import ImageSource, UnreadableImage
from cascade.storing.rows import ImageRow


def opened_as_path(row: ImageRow) -> ImageSource:
    """The file that a row's `uri` names.

    Raises:
        UnreadableImage: it isn't the file that was added.
    """
    return unchanged(row, row.uri)


def unchanged(row: ImageRow, path: str) -> str:
    """A path, if its file is still that of a row, as far as size and time of change say.

    Raises:
        UnreadableImage: it is gone, or another.
    """
    if row.size is None and row.modified is None:
        return path
    try:
        found = os.stat(path)
    except OSError as error:
        raise UnreadableImage(f"cannot read the image {path}: {error.strerror}") from error
    same = row.size in (None, found.st_size) and row.modified in (None, found.st_mtime_ns)
    if not same:
        raise UnreadableImage(f"{path} has changed since it was added: add it again")
    return path
