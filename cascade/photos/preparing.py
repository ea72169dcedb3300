"""From a photo that has changed to what a collection adds: read once, decoded, and prepared.

For a first stage that reads thumbnails no more of a file is read than these take.

Called by several threads ahead of a stage, in the process that holds the collection or on another
machine, with the same outcome.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeAlias

from cascade.photos.changes import Change, Kind
from cascade.photos.opening import opened
from cascade.photos.reading import read, reason_of
from cascade.photos.sparing import Spared, spared
from cascade.stages.images import ImageSource, UnreadableImage
from cascade.stages.mapped import MappedStage
from cascade.stages.stage import Stage
from cascade.storing.rows import ImageRow

Ready: TypeAlias = "ImageRow | tuple[ImageRow, ImageSource]"
"""A row alone, which is unchanged or has a reason, or with what a stage is given."""

_OF_ONE_IMAGE = (UnreadableImage, OSError, MemoryError)


def is_settled(change: Change) -> bool:
    """Whether what becomes of a photo is known without reading it."""
    unreadable = change.row.size is None and change.row.reason is not None
    return change.kind is Kind.TOUCHED or unreadable


def prepared(decoder: Callable[[], Stage | MappedStage | None], change: Change) -> "Ready | None":
    """The photo read and ready for the stage, or its row, with a reason if it can't be decoded.

    None: it was there when it was found and is gone now.

    Args:
        decoder: the stage that images are prepared for, if they can be; asked when there is one.
        change: what has become of the photo.
    """
    if is_settled(change):
        return change.row
    row = replace(change.row, reason=None)
    stage = decoder()
    try:
        if stage is not None and stage.reads == "thumbnail" and (file := spared(row)) is not None:
            with file:
                return _from_part(stage, file)
        found = read(row)
    except _OF_ONE_IMAGE as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        # without size and time, so that the next run tries again
        row = replace(change.row, size=None, modified=None, digest=None)
        return replace(row, reason=reason_of(error, row))
    if stage is None:
        return found.row, found.source
    try:
        return found.row, stage.prepare(found.source, partial(opened, found.row))
    except _OF_ONE_IMAGE as error:
        return replace(found.row, reason=reason_of(error, found.row))


def _from_part(stage: Stage | MappedStage, file: Spared) -> Ready:
    """What comes of a photo of which only a part may have to be read.

    Raises:
        UnreadableImage: it can't be read.
    """
    try:
        image = stage.prepare(file.source, partial(opened, file.row))
    except _OF_ONE_IMAGE as error:
        row = file.known(by_thumbnail=False)
        return replace(row, reason=reason_of(error, row))
    return file.known(image.by_thumbnail), image
