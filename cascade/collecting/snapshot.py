"""What one stage has made of a collection's images at one moment: what an export writes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cascade.collecting.view import View
from cascade.searching.blocks import FirstRows
from cascade.storing.rows import ImageRow
from cascade.storing.store import Ids


@dataclass(frozen=True)
class Snapshot:
    """The images that can be found and that a stage has encoded, all of one moment.

    Attributes:
        ids: int64 [n], ascending: what the collection numbers images by.
        rows: their rows [n].
        images: how many images can be found in all.
        held: the stage's embeddings, in memory or where they are stored.
        slots: int64 [n], which of these are the images'.
    """

    ids: Ids
    rows: Sequence[ImageRow]
    images: int
    held: FirstRows
    slots: Tensor

    def __len__(self) -> int:
        """Number of images with an embedding."""
        return len(self.ids)

    @property
    def dimension(self) -> int:
        """Of an embedding."""
        return self.held.dimension

    @property
    def embeddings(self) -> Tensor:
        """Float32 or float16 [n, d], as they are kept; those of `pieces` take little memory."""
        return self.held.at(self.slots)

    def pieces(self, size: int) -> Iterator["Snapshot"]:
        """Itself in pieces of so many images."""
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            yield Snapshot(
                self.ids[part],
                self.rows[part],
                min(size, self.images),
                self.held,
                self.slots[part],
            )


def snapshot_of(view: View, place: int) -> Snapshot:
    """What a stage has made so far; nobody refreshes the view meanwhile.

    Args:
        view: of the collection.
        place: of the stage, 0 for the first.
    """
    contents = view.cascade.catalogue.contents
    if place == 0:
        there = contents.there
        ids, rows = view.ids_and_rows(there.tolist())
        return Snapshot(ids, rows, len(contents), contents.rows, there)
    held = view.cascade.later[place - 1].store.held
    positions = held.positions
    slots = [
        slot
        for slot in positions.argsort(kind="stable").tolist()
        if positions[slot] not in contents.gone and positions[slot] < contents.rows.count
    ]
    ids, rows = view.ids_and_rows(positions[slots].tolist())
    return Snapshot(ids, rows, len(contents), held.rows, torch.tensor(slots, dtype=torch.int64))
