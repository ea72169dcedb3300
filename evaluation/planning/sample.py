"""A sample of a collection's images that both stages have encoded."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from cascade.collection import Collection
from cascade.measuring.sampling import sampled_positions
from cascade.searching.catalogue import Contents


@dataclass(frozen=True)
class Sample:
    """Images that the full tower has encoded, drawn from all.

    Attributes:
        contents: the collection that they were drawn from, as it was then.
        positions: int64 [s], ascending: where they are in it.
        embeddings: the full tower's, float32 [s, d].
        images: how many it was drawn from: those that there are, or of which it is all that the
            full tower can read.
        unreadable: how many of those drawn the full tower couldn't encode.
    """

    contents: Contents
    positions: Tensor
    embeddings: Tensor
    images: int
    unreadable: int

    @property
    def complete(self) -> bool:
        """Whether it is all images that the full tower can rank."""
        return len(self.positions) == self.images


def encoded_sample(
    collection: Collection,
    number: int,
    seed: int,
    batch_size: int,
    progress: Callable[[int], object] | None = None,
) -> Sample:
    """Draw images, and let the last stage encode those that it hasn't yet; the collection keeps it.

    Args:
        collection: with two stages.
        number: images to draw; all if there are no more.
        seed: of the draw.
        batch_size: images between two steps of the progress.
        progress: told after each step how many images were looked at.

    Raises:
        CollectionError: what was encoded can't be written.
    """
    cascade = collection.cascade
    contents, last = cascade.catalogue.contents, cascade.later[-1]
    positions = sampled_positions(contents, number, seed)
    for batch in positions.split(batch_size):
        last.encode_absent(batch.tolist(), cascade.catalogue, None)
        if progress is not None:
            progress(len(batch))
    collection.flush()
    held = last.store.held
    slots = held.slots(positions)
    read = slots >= 0
    everything = len(positions) == len(contents)
    return Sample(
        contents,
        positions[read],
        held.rows.embeddings[slots[read]].float(),
        images=int(read.sum()) if everything else len(contents),
        unreadable=int((~read).sum()),
    )
