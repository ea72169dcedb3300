"""A worker: reads, decodes and encodes photos for a collection that lies elsewhere.

It gets rows and gives back embeddings, or reasons why there are none; it keeps nothing and writes
nothing, so one that is lost costs the batches that it had in hand. What it makes is what
`Collection.add` would have made of the same batch.
"""

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from cascade.cascade import Cascade
from cascade.collecting.offers import Addition, Made
from cascade.collecting.recalling import RecalledStage, recalled
from cascade.collecting.record import StageRecord
from cascade.collecting.rounding import rounded
from cascade.collection import Collection
from cascade.photos.changes import Change
from cascade.photos.preparing import prepared
from cascade.photos.reading import digest_at
from cascade.searching.encoding import Encoded
from cascade.searching.states import States, resumed_from
from cascade.stages.images import ImageSource
from cascade.stages.mapped import MappedStage
from cascade.stages.stage import Stage
from cascade.stages.towers import Towers
from cascade.storing.errors import CollectionError
from cascade.storing.rows import ImageRow
from corpora.decoding.images import kinds_read
from corpora.pixels.ahead import TOGETHER, ahead


@dataclass(frozen=True)
class Job:
    """What workers do, all of it plain data.

    Attributes:
        stages: the first stage, and the one that resumes from it, if one does.
        precision: what embeddings are kept in.
        batch_size: images given to a stage at once.
        device: where the stage runs.
        threads: that read and decode.
        collection: where the collection is, for messages.
        kinds: of files that are read where the collection is, and must be by workers.
        runtime: what computes vision towers in float32, as `Stage.load` takes it; those in other
            types run in what the collection was made with.
    """

    stages: tuple[StageRecord, ...]
    precision: str
    batch_size: int
    device: str
    threads: int
    collection: str
    kinds: frozenset[str]
    runtime: str = "torch"

    @classmethod
    def of(
        cls,
        collection: Collection,
        batch_size: int,
        device: str,
        threads: int,
        runtime: str = "torch",
    ) -> "Job":
        """The job of encoding a collection's images as its first stage.

        Args:
            collection: what they are encoded for.
            batch_size: images given to a stage at once.
            device: where the stage runs.
            threads: that read and decode.
            runtime: what computes vision towers in float32.

        Raises:
            CollectionError: it isn't known where the stage comes from, so no worker can load it.
        """
        records = collection.record.stages
        sources = resumed_from(collection.stages)
        places = [0, *(place for place, source in enumerate(sources) if source == 0)]
        stages = tuple(records[place] for place in places)
        for record in stages:
            if record.checkpoint is None:
                raise CollectionError(
                    f"workers can't load the stage {record}: it came from no checkpoint. Make the "
                    "collection with stages that Stage.load has loaded"
                )
        precision, where = collection.record.precision, str(collection.path)
        return cls(stages, precision, batch_size, device, threads, where, kinds_read(), runtime)


@dataclass(frozen=True)
class Probe:
    """A photo by which a worker shows that it sees what the process that sends it sees."""

    row: ImageRow
    digest: str


@dataclass(frozen=True)
class Answer:
    """What came of some photos.

    Attributes:
        rows: of each; those that have no reason were encoded. None: it is gone by now.
        embeddings: float32 [n, d] of those that were encoded, in order.
        states: of the same images, if a later stage resumes from them.
    """

    rows: list[ImageRow | None]
    embeddings: Tensor
    states: States | None

    @classmethod
    def none(cls) -> "Answer":
        """Of no photos."""
        return cls([], torch.empty(0, 0), None)

    def additions(self) -> list["Addition | None"]:
        """What a collection is given."""
        states = None if self.states is None else self.states.apart()
        encoded = iter(
            Encoded(embedding, None if states is None else states[at])
            for at, embedding in enumerate(self.embeddings)
        )
        return [
            (row, next(encoded)) if row is not None and row.reason is None else row
            for row in self.rows
        ]


class Worker:
    """A worker on some machine. Two threads may call it: one decodes while the other encodes."""

    def release(self) -> str:
        """The version of this package here."""
        return version("clip-cascade")

    def begin(self, job: Job, probes: Sequence[Probe]) -> str:
        """Load the stage, and look whether photos can be seen; says on which machine this is.

        Raises:
            CollectionError: the stage can't be loaded here, or is another one; or photos that
                others see can't be seen, or not all kinds of them be read.
        """
        machine = f"{socket.gethostname()}, process {os.getpid()}"
        try:
            _check_kinds(job.kinds)
            _check_seen(probes)
            stages = recalled(
                job.stages,
                Path(job.collection),
                Towers(job.device, job.runtime, job.batch_size),
                only_images=True,
            )
            first = stages[0]
            if isinstance(first, RecalledStage):
                first = first.stage
        except (CollectionError, RuntimeError) as error:  # such as a device that isn't there
            said = " ".join(str(error).split())
            raise CollectionError(f"the worker on {machine} can't begin: {said}") from error
        self._job = job
        self._first = first if isinstance(first, Stage | MappedStage) else None
        self._cascade = Cascade(rounded(stages, job.precision), batch_size=job.batch_size)
        return machine

    def encode(self, changes: Sequence[Change]) -> Answer:
        """What comes of photos, which are at most as many as pass through a tower at once."""
        prepare = partial(prepared, lambda: self._first)
        ready = list(ahead(changes, prepare, self._job.threads, len(changes), TOGETHER))
        images: list[ImageSource] = [each[1] for each in ready if isinstance(each, tuple)]
        outcomes = iter(self._cascade.encode_first(images) if images else [])
        rows: list[ImageRow | None] = []
        encoded: list[Encoded] = []
        for each in ready:
            if not isinstance(each, tuple):
                rows.append(each)
                continue
            made = Made.of(each[0], next(outcomes))
            rows.append(made.row)
            if isinstance(made.outcome, Encoded):
                encoded.append(made.outcome)
        return _answer(rows, encoded)


def _answer(rows: list[ImageRow | None], encoded: Sequence[Encoded]) -> Answer:
    """With all tensors in one piece each, since a view would carry along what it is a view of."""
    if not encoded:
        return Answer(rows, torch.empty(0, 0), None)
    states = [made.states for made in encoded if made.states is not None]
    embeddings = torch.stack([made.embedding for made in encoded])
    return Answer(rows, embeddings, States.joined(states) if states else None)


def probes_of(changes: Sequence[Change], enough: int = 2) -> list[Probe]:
    """The first few photos that can be read here."""
    found: list[Probe] = []
    for change in changes:
        row = replace(change.row, reason=None)
        digest = digest_at(row)
        if digest is not None:
            found.append(Probe(row, digest))
        if len(found) == enough:
            break
    return found


def _check_kinds(kinds: frozenset[str]) -> None:
    """Refuse to work where photos would be skipped that can be read elsewhere.

    Raises:
        CollectionError: a decoder is missing.
    """
    missing = sorted(kinds - kinds_read())
    if missing:
        raise CollectionError(
            f"{', '.join(missing)} can't be read there: install the same decoders on all machines, "
            "as by pip install 'clip-cascade[heif,raw]'"
        )


def _check_seen(probes: Sequence[Probe]) -> None:
    """Refuse to work where photos aren't there, or are others of the same names.

    Raises:
        CollectionError: none of the photos is what it is where the probes were made.
    """
    digests = [digest_at(probe.row) for probe in probes]
    if not probes or any(
        digest == probe.digest for digest, probe in zip(digests, probes, strict=True)
    ):
        return
    what = "can't be read" if digests[0] is None else "is another file"
    raise CollectionError(
        f"{probes[0].row.key} {what} there: all machines must see the photos under the same path, "
        "as on a file system that they all mount, or by hub:"
    )
