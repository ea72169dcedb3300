"""Some of a collection's images, by its first stage and by the tower that is to be its last."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cascade.collection import Collection
from cascade.measuring.sampling import sampled_positions
from cascade.searching.catalogue import Contents
from cascade.searching.encoding import Encoded, Outcome, encode_each
from cascade.stages.stage import Encoder
from cascade.storing.store import Ids


@dataclass(frozen=True)
class Sample:
    """Images drawn from a collection that the new tower has encoded.

    Attributes:
        contents: the collection that they were drawn from, as it was then.
        positions: int64 [s], ascending: where they are in it.
        ids: int64 [s], what the collection numbers them by.
        embeddings: the new tower's, float32 [s, e].
        unreadable: how many of those drawn it couldn't encode.
        seconds: that it took to open and encode them all.
    """

    contents: Contents
    positions: Tensor
    ids: Ids
    embeddings: Tensor
    unreadable: int
    seconds: float

    def __len__(self) -> int:
        """Number of images."""
        return len(self.positions)

    @property
    def old(self) -> Tensor:
        """The first stage's embeddings, float32 [s, d]."""
        return self.contents.rows.at(self.positions)


def encoded_sample(
    collection: Collection,
    tower: Encoder,
    number: int,
    seed: int,
    batch_size: int,
    progress: Callable[[int], object] | None = None,
) -> Sample:
    """Draw images and let a tower encode them; the collection stays as it is.

    Args:
        collection: with at least one image.
        tower: what encodes them.
        number: images to draw; all if there are no more.
        seed: of the draw.
        batch_size: images that are encoded at once.
        progress: told after each batch how many images were looked at.
    """
    contents = collection.cascade.catalogue.contents
    places = sampled_positions(contents, number, seed).tolist()
    begun = time.perf_counter()
    positions: list[int] = []
    ids: list[int] = []
    found: list[Tensor] = []
    for start in range(0, len(places), batch_size):
        some = places[start : start + batch_size]
        for at, id_, outcome in _outcomes(collection, tower, contents, some):
            if isinstance(outcome, Encoded):
                positions.append(at)
                ids.append(id_)
                found.append(outcome.embedding)
        if progress is not None:
            progress(len(some))
    return Sample(
        contents,
        torch.tensor(positions, dtype=torch.int64),
        np.asarray(ids, np.int64),
        torch.stack(found) if found else torch.zeros(0, 0),
        len(places) - len(found),
        time.perf_counter() - begun,
    )


def _outcomes(
    collection: Collection, tower: Encoder, contents: Contents, positions: list[int]
) -> list[tuple[int, int, Outcome]]:
    """Position, id and outcome of images; those that were removed meanwhile are left out."""
    known = []
    for at in positions:
        key = str(contents.keys[at])
        row, id_ = collection.row(key), collection.id_of(key)
        if row is not None and id_ is not None and row.reason is None:
            known.append((at, id_, collection.image_of(row)))
    images = [image for _, _, image in known]
    outcomes = encode_each(lambda some: (tower.encode_images(some), None), images, None, 1)
    return [(at, id_, made) for (at, id_, _), made in zip(known, outcomes, strict=True)]
