"""Streams of queries, and the images that they bring up: pure functions.

People ask for a few things often and for many things once: the r-th most frequent text is asked in
proportion to 1 / r^s (Zipf's law).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]


def zipf_stream(texts: int, queries: int, exponent: float, seed: int) -> Numbers:
    """Which text each of a number of queries is, int64 [queries].

    Args:
        texts: how many there are; which of them is frequent is drawn.
        queries: drawn independently of each other.
        exponent: s, at least 0; at 0 all texts are equally frequent.
        seed: of both draws.

    Raises:
        ValueError: there is no text, or the exponent is below 0.
    """
    if texts < 1 or exponent < 0:
        raise ValueError(f"a stream needs a text and an exponent of at least 0, got {exponent}")
    generator = np.random.default_rng(seed)
    order = generator.permutation(texts)
    frequencies = np.arange(1, texts + 1, dtype=np.float64) ** -exponent
    chosen: Numbers = order[generator.choice(texts, queries, p=frequencies / frequencies.sum())]
    return chosen


def brought_up(
    stream: Numbers, handed_on: Sequence[Numbers], images: int, after: Sequence[int]
) -> list[int]:
    """How many images a later stage has encoded after some numbers of queries.

    Each image is encoded the first time that a query hands it on, and never again.

    Args:
        stream: which text each query is.
        handed_on: of each text, the images that it hands on.
        images: of the collection.
        after: numbers of queries, each at most the length of the stream.
    """
    encoded = np.zeros(images, bool)
    counts = np.zeros(len(stream) + 1, np.int64)
    texts, places = np.unique(stream, return_index=True)
    for text, place in sorted(zip(texts.tolist(), places.tolist(), strict=True), key=_place):
        candidates = handed_on[text]
        counts[place + 1] = int((~encoded[candidates]).sum())
        encoded[candidates] = True
    totals = counts.cumsum()
    return [int(totals[number]) for number in after]


def _place(pair: tuple[int, int]) -> int:
    return pair[1]
