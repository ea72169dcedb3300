"""Queries that a collection has itself, for the first stage: some of its images and captions."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from cascade.cascade import Cascade
from cascade.inverted.building import QUERIES, Sampled
from cascade.storing.rows import ImageRow

IMAGES, CAPTIONS = "images", "captions"


def sampled_queries(
    cascade: Cascade, rows: Iterable[ImageRow], number: int = QUERIES, seed: int = 0
) -> list[Sampled]:
    """Images, and captions if there are any, by the first stage.

    Texts lie elsewhere than images in a CLIP's space, and lists are made of images: what is found
    for one kind says little of the other.

    Args:
        cascade: of the collection, which has images.
        rows: of its images.
        number: of each kind; fewer if there aren't as many.
        seed: of the draw.
    """
    contents = cascade.catalogue.contents
    generator = np.random.default_rng(seed)
    there = contents.there
    chosen = generator.permutation(len(there))[:number]
    own = there[torch.from_numpy(np.sort(chosen))]
    found = [Sampled(IMAGES, contents.rows.at(own).float(), own)]
    texts = _drawn(rows, number, generator)
    if texts:
        found.append(Sampled(CAPTIONS, cascade.encode_texts(texts)[0]))
    return found


def _drawn(rows: Iterable[ImageRow], number: int, generator: np.random.Generator) -> Sequence[str]:
    """So many captions, no more than one of an image: each image's has the same chance."""
    drawn: list[str] = []
    seen = 0
    for row in rows:
        captions = [] if row.reason is not None else row.captions
        if not captions:
            continue
        seen += 1
        place = len(drawn) if len(drawn) < number else int(generator.integers(seen))
        if place < number:
            text = captions[int(generator.integers(len(captions)))]
            drawn[place : place + 1] = [text]
    return drawn
