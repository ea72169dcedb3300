"""Photos in data sets of the Hugging Face hub, and in local directories in the hub's layout.

Which column holds the images, and which of them may be read, is what `corpora` says; the images
stay where `datasets` keeps them, and one is read when it is asked for.
"""

import os
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from cascade.photos.addresses import RowAddress, key_of_row
from cascade.storing.rows import ImageRow
from corpora import CorpusError
from corpora.problems import Problems

if TYPE_CHECKING:
    from datasets import Dataset


def rows_of(data_set: str) -> Iterator[ImageRow]:
    """The images of all splits, in their order.

    A row without an image, or with one that lies outside of the data set, has a reason.

    Args:
        data_set: `owner/name`, `owner/name@config` or an absolute directory.

    Raises:
        CorpusError: it can't be loaded or holds no images.
    """
    for split, images in _splits(data_set).items():
        usable = _usable(images, data_set)
        for row, fine in enumerate(usable):
            key = key_of_row(data_set, split, row)
            image = images[row]["image"]
            if not fine or image is None:
                reason = "row without an image" if image is None else "file outside of the data set"
                yield ImageRow(key, key, reason=reason)
                continue
            content, path = image.get("bytes"), image.get("path")
            if content is not None:
                yield ImageRow(key, key, size=len(content))
                continue
            try:
                found = os.stat(path)
            except OSError:
                yield ImageRow(key, key, reason="file that isn't there")
                continue
            yield ImageRow(key, key, found.st_size, found.st_mtime_ns)


def image_at(address: RowAddress) -> dict[str, Any]:
    """The image of a row, not decoded: {"path": …, "bytes": …}.

    Raises:
        CorpusError: the data set can't be loaded, or has no such row any more.
    """
    if not has_row(address):
        raise CorpusError(f"{address.data_set}: has no row {address.split}/{address.row} any more")
    splits = _splits(address.data_set)
    image: dict[str, Any] | None = splits[address.split][address.row]["image"]
    if image is None:
        raise CorpusError(f"{address.data_set}: {address.split}/{address.row} has no image")
    return image


def has_row(address: RowAddress) -> bool:
    """Whether a data set has a row.

    Raises:
        CorpusError: the data set can't be loaded.
    """
    split = _splits(address.data_set).get(address.split)
    return split is not None and address.row < len(split)


@lru_cache(maxsize=4)
def _splits(data_set: str) -> dict[str, "Dataset"]:
    """The images of each split, in a column `image` that isn't decoded."""
    from datasets import Image

    from corpora.readers.published import image_column, loaded

    found = {}
    for split, part in loaded(data_set).items():
        column = image_column(part, data_set)
        images = part.select_columns(column).cast_column(column, Image(decode=False))
        found[str(split)] = images if column == "image" else images.rename_column(column, "image")
    return found


def _usable(images: "Dataset", data_set: str) -> list[bool]:
    from corpora.readers.published import usable_rows

    return usable_rows([images], data_set, Problems())
