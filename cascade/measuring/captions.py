"""Queries to measure on that a collection has itself: the captions of its images."""

from collections.abc import Sequence

import numpy as np

from cascade.collection import Collection


def captions_of(collection: Collection) -> list[str]:
    """All captions that the images' metadata hold: texts or lists of them, by the name captions."""
    return [text for _, captions in captioned(collection) for text in captions]


def captioned(collection: Collection) -> list[tuple[str, list[str]]]:
    """The keys of the images that have captions, and the captions of each."""
    rows = (row for row in collection.rows() if row.reason is None)
    return [(row.key, list(row.captions)) for row in rows if row.captions]


def drawn_texts(texts: Sequence[str], number: int, seed: int) -> list[str]:
    """So many texts, each drawn from all of them: with replacement, so they are independent."""
    chosen = np.random.default_rng(seed).integers(0, len(texts), number)
    return [texts[at] for at in chosen.tolist()]
