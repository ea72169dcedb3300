"""Collections that were made apart, as by jobs that share nothing, become one.

What the stages have encoded goes along, so nothing is opened or encoded.
"""

from collections.abc import Iterator
from pathlib import Path

from cascade.collecting.offers import Added, Addition, is_unchanged
from cascade.collecting.recalling import check_same
from cascade.collection import Collection
from cascade.searching.encoding import Encoded
from cascade.searching.later import LaterStage
from cascade.storing.errors import CollectionError

_AT_ONCE = 4096


def join(collection: Collection, other: Collection) -> Added:
    """Add the images of another collection, with what all stages have made of them.

    As `Collection.add`: images that are there already stay as they are, and one of the same key
    with other content is replaced. A skipped image is taken over if nothing is known under its key.
    What was joined before an interruption lasts; the same call goes on from it.

    Args:
        collection: what they are added to.
        other: where they come from, which stays as it is.

    Returns:
        What became of them.

    Raises:
        CollectionError: the other was made with other stages or in another precision, or
            `collection` can't be written.
    """
    where = collection.path or Path("the collection")
    check_same(collection.record.stages, other.stages, where)
    ours, theirs = collection.record.precision, other.record.precision
    if ours != theirs:
        raise CollectionError(
            f"{where} keeps embeddings in {ours}, {other.path} in {theirs}: only collections of "
            "one precision can be joined"
        )
    added = collection.add(_additions(collection, other))
    for mine, others in zip(collection.cascade.later, other.cascade.later, strict=True):
        _take_later(collection, mine, other, others)
    collection.flush()
    return added


def _additions(collection: Collection, other: Collection) -> Iterator[Addition]:
    contents = other.cascade.catalogue.contents
    for positions in contents.there.split(_AT_ONCE):
        for position, embedding in zip(
            positions.tolist(), contents.rows.at(positions), strict=True
        ):
            row = other.row(str(contents.keys[position]))
            if row is not None and row.reason is None:  # else it was removed just now
                yield row, Encoded(embedding)
    skipped = [row for row in other.rows() if row.reason is not None]
    for row in skipped:
        if collection.row(row.key) is None:
            yield row


def _take_later(
    collection: Collection, mine: LaterStage, other: Collection, others: LaterStage
) -> None:
    """Take over what a later stage of the other has encoded, of images that both hold."""
    held, contents = others.store.held, other.cascade.catalogue.contents
    catalogue = collection.cascade.catalogue
    places: list[int] = []
    slots: list[int] = []
    for slot, position in enumerate(held.positions.tolist()):
        if position in contents.gone:
            continue
        key = str(contents.keys[position])
        place, known, row = catalogue.position(key), collection.row(key), other.row(key)
        if place is None or known is None or row is None:
            continue
        if known == row or is_unchanged(row, known):
            places.append(place)
            slots.append(slot)
    if places:
        mine.take(places, held.rows.embeddings[slots])
