"""What decoding and encoding take alone: what indexing can't be faster than."""

import heapq
import os
import random
import time
from collections.abc import Sequence
from contextlib import closing
from functools import partial

from cascade.photos.finding import Photos
from cascade.photos.reading import read
from cascade.stages.images import UnreadableImage
from cascade.stages.preparing import Prepared
from cascade.stages.stage import Stage
from cascade.storing.rows import ImageRow
from corpora.pixels.ahead import TOGETHER, ahead
from evaluation.reports.indexing.report import Rates

_TURNS = 3


def sampled_rows(photos: Photos, number: int, seed: int) -> list[ImageRow]:
    """So many photos drawn from all, in a random order; all of them where there are fewer."""
    rows = (row for row in photos if row.reason is None)
    draw = random.Random(seed)
    drawn = heapq.nlargest(number, ((draw.random(), at, row) for at, row in enumerate(rows)))
    return [row for _, _, row in drawn]


def rates_of(stage: Stage, rows: Sequence[ImageRow]) -> Rates:
    """Images a second of reading and decoding alone, and of encoding alone.

    Both with as many threads as indexing has of each, in turn, the fastest of three turns: the
    bound that indexing is compared with should not be low because the machine was busy.

    Raises:
        ValueError: none of the photos can be read.
    """
    decoding, encoding = [], []
    size = stage.batch_size
    for _ in range(_TURNS):
        begun = time.perf_counter()
        images = decoded(stage, rows, os.cpu_count() or 1)
        decoding.append(time.perf_counter() - begun)
        if not images:
            raise ValueError("none of the photos can be read")
        begun = time.perf_counter()
        for start in range(0, len(images), size):
            stage.encode_images(images[start : start + size])
        encoding.append(time.perf_counter() - begun)
    return Rates(
        photos=len(rows),
        decoding=len(rows) / min(decoding),
        encoding=len(images) / min(encoding),
    )


def decoded(stage: Stage, rows: Sequence[ImageRow], threads: int) -> list[Prepared]:
    """The photos read and prepared for a stage, in threads, as indexing does it."""
    with closing(ahead(rows, partial(_prepared, stage), threads, together=TOGETHER)) as ready:
        return [prepared for prepared in ready if prepared is not None]


def _prepared(stage: Stage, row: ImageRow) -> Prepared | None:
    try:
        return stage.prepare(read(row).source)
    except (UnreadableImage, OSError, MemoryError):
        return None
