"""What a collection holds, told from its store alone: no tower and no embedding is read for it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cascade.collecting.approach import Approach
from cascade.collecting.record import Record
from cascade.inverted.record import Inverted
from cascade.storing.store import Store


@dataclass(frozen=True)
class Status:
    """What a collection holds.

    Attributes:
        images: that can be found.
        skipped: number of images that were skipped, by reason.
        encoded: images that each stage has encoded, as far as it is stored.
        waiting: embeddings of later stages that are not stored yet.
        nbytes: on disk.
        stages: the stages' names.
        m: candidates handed from each stage to the next; at most, if each query has its own.
        precision: what embeddings are kept in.
        states: images whose states are stored, from which a stage that resumes goes on.
        state_bytes: that the states of one image take.
        searched: how the first stage is searched, in a few words.
        inverted: what was measured of the lists that are searched; None: the search is exact.
    """

    images: int
    skipped: Mapping[str, int]
    encoded: tuple[int, ...]
    waiting: int
    nbytes: int
    stages: tuple[str, ...]
    m: tuple[int, ...]
    precision: str
    states: int
    state_bytes: int
    searched: str
    inverted: Inverted | None


def counted(store: Store, record: Record, approach: Approach) -> tuple[Status, dict[str, str]]:
    """What there is, and why images were skipped, by their keys.

    Args:
        store: of the collection; nothing of it waits in this process.
        record: what the collection was made with.
        approach: how it is searched.

    Raises:
        CollectionError: the store can't be read.
    """
    later = [store.encoded(place) for place in range(1, len(record.stages))]
    images = store.images(0)  # after these: whatever they encoded, its image was there before
    there = images.ids[~images.skipped]
    rows = (images.rows[at] for at in np.flatnonzero(images.skipped).tolist())
    reasons = {row.key: str(row.reason) for row in rows}
    states, state_bytes = store.kept_states()
    words, inverted = approach.counted()
    status = Status(
        images=len(there),
        skipped=Counter(reasons.values()),
        encoded=(len(there), *(int(np.isin(there, ids).sum()) for ids in later)),
        waiting=0,
        nbytes=store.nbytes(),
        stages=tuple(stage.name for stage in record.stages),
        m=tuple(record.m),
        precision=record.precision,
        states=states,
        state_bytes=state_bytes,
        searched=words,
        inverted=inverted,
    )
    return status, reasons
