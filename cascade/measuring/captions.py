"""Queries to measure on that a collection has itself: the captions of its images."""

from collections.abc import Iterable, Sequence

import numpy as np

from cascade.storing.rows import ImageRow


def captions_of(rows: Iterable[ImageRow]) -> list[str]:
    """All captions of a collection's images, in order."""
    return [text for _, captions in captioned(rows) for text in captions]


def captioned(rows: Iterable[ImageRow]) -> list[tuple[str, list[str]]]:
    """The keys of the images that have captions, and the captions of each."""
    there = (row for row in rows if row.reason is None)
    return [(row.key, list(row.captions)) for row in there if row.captions]


def drawn_texts(texts: Sequence[str], number: int, seed: int) -> list[str]:
    """So many texts, each drawn from all of them: with replacement, so they are independent."""
    chosen = np.random.default_rng(seed).integers(0, len(texts), number)
    return [texts[at] for at in chosen.tolist()]
