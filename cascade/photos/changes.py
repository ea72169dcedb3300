"""What is new, given what a collection knows and what is found now.

An image is known by its key. Whether its file is still the same is told by size and time of
change, as rsync and git do; only where these leave it open are bytes read and compared by their
BLAKE2b-128. So a run over unchanged photos reads none of them.

Of some photos only the digest of the ends is known (`identity`), which says that bytes are others,
but never alone that they are the same: such a photo was moved only if its time moved with it, and
has changed wherever its time has.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeAlias

from cascade.photos.identity import is_of_ends
from cascade.storing.rows import ImageRow


class Kind(Enum):
    """What has become of an image."""

    NEW = "new"
    UNCHANGED = "unchanged"
    """its size and time are what they were, or it can't be read for the same reason as before"""
    TOUCHED = "touched"
    """its time or size as noted is another one, its bytes are the same"""
    CHANGED = "changed"
    """its bytes are others, or it can't be read any more"""
    MOVED = "moved"
    """it is new here, with the bytes of one that is no longer where it was"""
    GONE = "gone"
    """it is no longer where it was, and nowhere else"""


@dataclass(frozen=True)
class Change:
    """An image, and what has become of it.

    Attributes:
        kind: what has.
        row: as found now, with its digest if that had to be computed or is known; of one that is
            gone as it was.
        before: as it was; None of a new one.
    """

    kind: Kind
    row: ImageRow
    before: ImageRow | None = None


Digest: TypeAlias = Callable[[ImageRow, str | None], str | None]
"""(row, a digest to compare with) → the digest of the image's bytes, of the same kind as that one;
None if they can't be read."""


def changes(
    known: Iterable[ImageRow],
    found: Iterable[ImageRow],
    digest: Digest,
    is_there: Callable[[ImageRow], bool],
    covers: Callable[[str], bool] = lambda _: True,
) -> Iterator[Change]:
    """What has become of each image: of those found in their order, then of those that are gone.

    A key that is found twice counts once. Of several that a new image may be, the first that is
    known is the one that was moved; each is moved once.

    Args:
        known: the rows of a collection; keys are different.
        found: the rows found now, without digests.
        digest: see `Digest`.
        is_there: whether a known image is still where it was; asked only of such that may be gone.
        covers: whether an image of this key had been found if it were there; others aren't gone.
    """
    rows = {row.key: row for row in known}
    by_size: defaultdict[int, list[ImageRow]] = defaultdict(list)
    for row in rows.values():
        if row.size is not None and row.digest is not None:
            by_size[row.size].append(row)
    left = dict.fromkeys(rows)  # what wasn't found, in the order of the collection
    new: set[str] = set()

    def of_new(row: ImageRow) -> Change:
        if row.reason is None and row.size is not None:
            candidates = [
                before
                for before in by_size.get(row.size, ())
                if before.key in left and _may_be_same(row, before)
            ]
            row, before = _moved_from(row, candidates, digest, is_there)
            if before is not None:
                del left[before.key]
                kept = replace(row, reason=before.reason, metadata=before.metadata)
                return Change(Kind.MOVED, kept, before)
        return Change(Kind.NEW, row)

    for row in found:
        before = rows.get(row.key)
        if before is None:
            if row.key not in new:
                new.add(row.key)
                yield of_new(row)
        elif row.key in left:
            del left[row.key]
            yield _of_known(row, before, digest)
    for key in left:
        if covers(key) and not is_there(rows[key]):
            yield Change(Kind.GONE, rows[key], rows[key])


def _may_be_same(row: ImageRow, before: ImageRow) -> bool:
    """Whether equal digests would say that two images of one size have the same bytes."""
    return not is_of_ends(before.digest) or row.modified == before.modified


def _moved_from(
    row: ImageRow,
    candidates: Iterable[ImageRow],
    digest: Digest,
    is_there: Callable[[ImageRow], bool],
) -> tuple[ImageRow, ImageRow | None]:
    """A new image with a digest that had to be computed, and which of the candidates it was."""
    digests: dict[bool, str | None] = {}
    for before in candidates:
        kind = is_of_ends(before.digest)
        if kind not in digests:
            digests[kind] = digest(row, before.digest)
        if digests[kind] == before.digest and not is_there(before):
            return replace(row, digest=before.digest), before
    whole = digests.get(False)
    return (row if whole is None else replace(row, digest=whole)), None


def _of_known(row: ImageRow, before: ImageRow, digest: Digest) -> Change:
    """What has become of an image that is where it was."""
    if row.reason is not None:
        return Change(Kind.UNCHANGED if row.reason == before.reason else Kind.CHANGED, row, before)
    as_before = replace(row, digest=before.digest, reason=before.reason, metadata=before.metadata)
    noted = (before.size, before.modified)
    if noted == (row.size, row.modified) and None not in noted:
        same = row.uri == before.uri  # else a program has written it in another way
        return Change(Kind.UNCHANGED if same else Kind.TOUCHED, as_before, before)
    if row.size == before.size and before.digest is not None and _may_be_same(row, before):
        row = replace(row, digest=digest(row, before.digest))
        if row.digest == before.digest:
            return Change(Kind.TOUCHED, as_before, before)
    return Change(Kind.CHANGED, row, before)
