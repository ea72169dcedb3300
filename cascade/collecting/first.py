"""What the first stage makes of images on their way into a collection."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import cast

from cascade.cascade import Cascade
from cascade.collecting.offers import Offer
from cascade.collecting.rounding import Rounded
from cascade.collecting.view import Opener
from cascade.searching.encoding import Encoded, Outcome, Skipped
from cascade.stages.images import ImageSource


def first_outcomes(batch: Sequence[Offer], cascade: Cascade, opener: Opener) -> list[Outcome]:
    """The outcome of each of a batch of images; those that have a reason have it already.

    Args:
        batch: the images.
        cascade: whose first stage encodes those that aren't encoded; its stages are rounded.
        opener: opens what is given by its row alone.

    Raises:
        ValueError: an embedding that is given has another dimension than those that are there, or
            as of `Cascade.encode_first`.
    """
    outcomes: list[Outcome] = [Skipped(str(offer.row.reason)) for offer in batch]
    places: list[int] = []
    images: list[ImageSource] = []
    for at, offer in enumerate(batch):
        if offer.row.reason is not None:
            continue
        if isinstance(offer.image, Encoded):
            outcomes[at] = _given(offer.row.key, offer.image, cascade)
            continue
        places.append(at)
        images.append(partial(opener, offer.row) if offer.image is None else offer.image)
    if images:
        for at, outcome in zip(places, cascade.encode_first(images), strict=True):
            outcomes[at] = outcome
    return outcomes


def _given(key: str, encoded: Encoded, cascade: Cascade) -> Outcome:
    """An embedding that was made elsewhere, as the first stage would give it here."""
    rows = cascade.catalogue.contents.rows
    shape = list(encoded.embedding.shape)
    if len(shape) != 1 or (rows.count and shape[0] != rows.dimension):
        expected = rows.dimension if rows.count else "d"
        raise ValueError(f"{key!r} came with an embedding {shape}, [{expected}] is expected")
    embedding = cast(Rounded, cascade.stages[0]).rounded(encoded.embedding)
    if not embedding.isfinite().all():
        return Skipped("its embedding is not finite")
    return replace(encoded, embedding=embedding)
