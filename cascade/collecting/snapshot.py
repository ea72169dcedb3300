"""What one stage has made of a collection's images at one moment: what an export writes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cascade.collecting.view import View
from cascade.storing.rows import ImageRow
from cascade.storing.store import Ids


@dataclass(frozen=True)
class Snapshot:
    """The images that can be found and that a stage has encoded, all of one moment.

    Attributes:
        ids: int64 [n], ascending: what the collection numbers images by.
        rows: their rows [n].
        embeddings: float32 [n, d], rounded as they are kept.
        images: how many images can be found in all.
    """

    ids: Ids
    rows: Sequence[ImageRow]
    embeddings: Tensor
    images: int

    def __len__(self) -> int:
        """Number of images with an embedding."""
        return len(self.ids)

    def pieces(self, size: int) -> Iterator["Snapshot"]:
        """Itself in pieces of so many images."""
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            yield Snapshot(
                self.ids[part], self.rows[part], self.embeddings[part], min(size, self.images)
            )


def snapshot_of(view: View, place: int) -> Snapshot:
    """What a stage has made so far; nobody refreshes the view meanwhile.

    Args:
        view: of the collection.
        place: of the stage, 0 for the first.
    """
    contents = view.cascade.catalogue.contents
    if place == 0:
        embeddings, there = contents.rows.embeddings, contents.there.tolist()
        slots = there
    else:
        held = view.cascade.later[place - 1].store.held
        embeddings, positions = held.rows.embeddings, held.positions
        order = positions.argsort(kind="stable").tolist()
        slots = [
            slot
            for slot in order
            if positions[slot] not in contents.gone and positions[slot] < contents.rows.count
        ]
        there = positions[slots].tolist()
    ids, rows = view.ids_and_rows(there)
    taken = embeddings if len(slots) == len(embeddings) and place == 0 else embeddings[slots]
    return Snapshot(ids, rows, taken if len(slots) else torch.zeros(0, 0), len(contents))
