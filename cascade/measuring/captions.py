"""Queries to measure on that a collection has itself: the captions of its images."""

import json
from collections.abc import Sequence

import numpy as np

from cascade.collection import Collection


def captions_of(collection: Collection) -> list[str]:
    """All captions that the images' metadata hold: texts or lists of them, by the name captions."""
    return [text for _, captions in captioned(collection) for text in captions]


def captioned(collection: Collection) -> list[tuple[str, list[str]]]:
    """The keys of the images that have captions, and the captions of each."""
    found = [
        (row.key, _captions(row.metadata))
        for row in collection.rows()
        if row.reason is None and row.metadata is not None
    ]
    return [(key, captions) for key, captions in found if captions]


def drawn_texts(texts: Sequence[str], number: int, seed: int) -> list[str]:
    """So many texts, each drawn from all of them: with replacement, so they are independent."""
    chosen = np.random.default_rng(seed).integers(0, len(texts), number)
    return [texts[at] for at in chosen.tolist()]


def _captions(metadata: str) -> list[str]:
    try:
        entries = json.loads(metadata)
    except ValueError:
        return []
    found = entries.get("captions") if isinstance(entries, dict) else None
    several = found if isinstance(found, list) else [found]
    return [text for text in several if isinstance(text, str) and text.strip()]
