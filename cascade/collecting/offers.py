"""Images on their way into a collection: what is given for each, and what comes of it."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

from cascade.photos.identity import better, says_same
from cascade.searching.encoding import Encoded, Outcome, Skipped
from cascade.stages.images import ImageSource
from cascade.storing.errors import CollectionError
from cascade.storing.rows import ImageRow

Addition: TypeAlias = "ImageRow | tuple[ImageRow, ImageSource | Encoded] | str | os.PathLike[str]"
"""A row, which is opened by its `uri`; a row and what to open instead, or what the first stage has
made of it already; or the path of a file."""


@dataclass(frozen=True)
class Added:
    """What became of images that were added.

    Attributes:
        added: new ones that can be found now.
        replaced: those that took the place of another content under the same key.
        unchanged: those that were there already.
        skipped: those that have a reason in place of embeddings.
    """

    added: int = 0
    replaced: int = 0
    unchanged: int = 0
    skipped: int = 0

    def __add__(self, other: "Added") -> "Added":
        return Added(
            self.added + other.added,
            self.replaced + other.replaced,
            self.unchanged + other.unchanged,
            self.skipped + other.skipped,
        )


@dataclass(frozen=True)
class Offer:
    """An image to add: its row, and what to open; None: whatever the row's `uri` names.

    Or, in place of what to open, what the first stage has made of it already.
    """

    row: ImageRow
    image: "ImageSource | Encoded | None" = None

    @classmethod
    def of(cls, given: Addition) -> "Offer":
        """An offer of whatever was given.

        Raises:
            TypeError: it is none of what may be given.
            CollectionError: its key or uri isn't text that can be written in UTF-8.
        """
        if isinstance(given, tuple):
            return cls(_checked(given[0]), given[1])
        if isinstance(given, str | os.PathLike):
            return cls(_checked(_row_of(os.fspath(given))))
        if isinstance(given, ImageRow):
            return cls(_checked(given))
        raise TypeError(
            "a collection takes paths, ImageRows, or pairs of an ImageRow and an image, not a "
            f"{type(given).__name__}"
        )


@dataclass(frozen=True)
class Made:
    """A row, and what the first stage made of its image."""

    row: ImageRow
    outcome: Outcome

    @classmethod
    def of(cls, row: ImageRow, outcome: Outcome) -> "Made":
        """With the reason in the row, if there is one."""
        if isinstance(outcome, Encoded):
            return cls(row, outcome)
        reason = outcome.reason.encode("utf-8", "backslashreplace").decode()
        return cls(replace(row, reason=reason), Skipped(reason))


def is_unchanged(row: ImageRow, known: ImageRow) -> bool:
    """Whether an image is the one that a known row says, as far as rows can tell.

    By their digests if both have one of the same kind (see `cascade.photos.identity`), otherwise by
    size and time of change. What was skipped before never is: it may be readable now.
    """
    if row.reason is not None or known.reason is not None:
        return False
    if (same := says_same(row, known)) is not None:
        return same
    if row.size is None or row.modified is None:
        return False
    return (row.size, row.modified) == (known.size, known.modified)


def renewed(row: ImageRow, known: ImageRow) -> ImageRow:
    """A row whose image is unchanged, with what is known of it besides."""
    return replace(
        row,
        digest=better(row.digest, known.digest),
        metadata=known.metadata if row.metadata is None else row.metadata,
        size=known.size if row.size is None else row.size,
        modified=known.modified if row.modified is None else row.modified,
    )


def in_batches(offers: Iterator[Offer], size: int) -> Iterator[list[Offer]]:
    """Offers of images to encode, up to `size` at a time."""
    batch: list[Offer] = []
    for offer in offers:
        batch.append(offer)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _row_of(path: str) -> ImageRow:
    try:
        found = os.stat(path)
    except OSError:  # the stage that opens it says what is wrong
        return ImageRow(key=path, uri=path)
    return ImageRow(key=path, uri=path, size=found.st_size, modified=found.st_mtime_ns)


def _checked(row: ImageRow) -> ImageRow:
    for text in (row.key, row.uri):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise CollectionError(
                f"{text!r} can't be written in UTF-8: give the image a row with another key and uri"
            ) from error
    return row
