"""Another first stage for a collection on disk: all images encoded anew, and then one step.

What the new stage has encoded is kept beside the collection while it is searched and added to as
before, so whatever cuts this off, it goes on where it was. What the later stages have encoded
stays. Then the record names the new tables, and the old ones are removed: all of it is there, or
nothing has changed.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from cascade.collecting.recalling import recorded
from cascade.collecting.record import Record
from cascade.collecting.rounding import rounded
from cascade.searching.encoding import Encoded, Outcome, Skipped, encode_each
from cascade.stages.images import ImageSource, UnreadableImage
from cascade.stages.mapped import MappedStage
from cascade.stages.stage import Encoder, Stage
from cascade.storing.errors import CollectionError
from cascade.storing.rows import ImageRow
from cascade.storing.store import Ids
from corpora.pixels.ahead import ahead

if TYPE_CHECKING:
    from cascade.storing.lance import LanceStore

_OF_ONE_IMAGE = (UnreadableImage, OSError, MemoryError)
_BATCHES_A_COMMIT = 16
_MAPS = "maps-*.safetensors"


@dataclass(frozen=True)
class Renewal:
    """What a collection is to begin with.

    Attributes:
        first: the new first stage.
        m: candidates handed on from now on, as of `Cascade`.
        batch_size: images that it is given at once.
        threads: that read and decode ahead of it.
    """

    first: Encoder
    m: Sequence[int]
    batch_size: int = 32
    threads: int = 4


class Renewing:
    """Encodes what is missing, and takes the step."""

    def __init__(
        self,
        store: "LanceStore",
        path: Path,
        record: Record,
        image_of: Callable[[ImageRow], ImageSource],
        asked: Renewal,
        progress: Callable[[int], object] | None = None,
    ) -> None:
        """Begin, or go on.

        Args:
            store: of the collection; it is closed to writing once the step is taken.
            path: its directory.
            record: what it was made with.
            image_of: what opens the image of a row.
            asked: what is to be.
            progress: told of images that are encoded: at first those that were before.
        """
        from cascade.storing.pending import Pending

        self._store = store
        self._path = path
        self._record = record
        self._image_of = image_of
        self._asked = asked
        self._progress = progress
        name = hashlib.blake2b(asked.first.name.encode(), digest_size=8).hexdigest()
        self._pending: Pending = Pending(path, name, store.precision)
        self._unreadable: dict[str, str] = {}

    def run(self) -> Record:
        """Encode and take the step; the new record.

        Raises:
            CollectionError: an image can't be read any more, or the directory can't be written.
                What was encoded is kept.
        """
        try:
            done = self._pending.ids()
            self._tell(len(np.intersect1d(done, self._present()[0])))
            self._encode()
            with self._store.writing():
                self._unreadable = {}
                self._encode()  # what was added meanwhile; nothing more can be
                self._refuse_unreadable()
                return self._step()
        except (OSError, RuntimeError) as error:
            said = " ".join(str(error).split())
            raise CollectionError(f"{self._path} can't be written: {said}") from error
        finally:
            self._pending.close()

    def _present(self) -> tuple[Ids, Sequence[ImageRow]]:
        """The ids and rows of the images that can be found."""
        images = self._store.images(0)
        places = np.flatnonzero(~images.skipped)
        return images.ids[places], [images.rows[at] for at in places.tolist()]

    def _encode(self) -> None:
        """Encode those images that have no embedding yet; what can't be read is noted."""
        ids, rows = self._present()
        missing = np.flatnonzero(~np.isin(ids, self._pending.ids())).tolist()
        made: list[tuple[int, torch.Tensor]] = []
        for number, batch in enumerate(self._outcomes(ids, rows, missing), start=1):
            for at, outcome in batch:
                if isinstance(outcome, Encoded):
                    made.append((int(ids[at]), outcome.embedding))
                else:
                    self._unreadable[rows[at].key] = outcome.reason
            if number % _BATCHES_A_COMMIT == 0:
                made = self._keep(made)
        self._keep(made)

    def _keep(self, made: list[tuple[int, torch.Tensor]]) -> list[tuple[int, torch.Tensor]]:
        """Write what was made; what is left to write."""
        if made:
            with self._store.writing():  # and nobody has migrated it meanwhile
                vectors = torch.stack([vector for _, vector in made]).numpy()
                self._pending.add(np.asarray([at for at, _ in made], np.int64), vectors)
            self._tell(len(made))
        return []

    def _outcomes(
        self, ids: Ids, rows: Sequence[ImageRow], missing: list[int]
    ) -> Iterator[list[tuple[int, Outcome]]]:
        """Batches of places among the rows and what the new stage makes of their images."""
        (kept_as,) = rounded([self._asked.first], str(self._store.precision))
        size = self._asked.batch_size
        ready = ahead(missing, partial(self._ready, rows), self._asked.threads, 2 * size)
        while batch := list(islice(ready, size)):
            images = [(at, image) for at, image in batch if not isinstance(image, Skipped)]
            outcomes = encode_each(
                lambda some: (kept_as.encode_images(some), None),
                [image for _, image in images],
                None,
                0,
            )
            known: dict[int, Outcome] = {
                at: image for at, image in batch if isinstance(image, Skipped)
            }
            known |= {at: made for (at, _), made in zip(images, outcomes, strict=True)}
            yield [(at, known[at]) for at, _ in batch]

    def _ready(self, rows: Sequence[ImageRow], at: int) -> "tuple[int, ImageSource | Skipped]":
        """The image of a row, decoded for the stage if it can be, or why not."""
        source = self._image_of(rows[at])
        first = self._asked.first
        if not isinstance(first, Stage | MappedStage):
            return at, source
        try:
            return at, first.prepare(source, source)
        except _OF_ONE_IMAGE as error:
            return at, Skipped(str(error) or type(error).__name__)

    def _refuse_unreadable(self) -> None:
        if self._unreadable:
            key, reason = next(iter(self._unreadable.items()))
            raise CollectionError(
                f"{len(self._unreadable):,} images of {self._path} can't be read for the new first "
                f"stage ({key}: {reason}): bring them back, or let cascade.index --prune remove "
                "them, and run this again. What was encoded is kept, and nothing has changed"
            )

    def _step(self) -> Record:
        """Write the new tables and the record, and remove the old ones."""
        self._store.sweep()
        made = self._store.successor(len(self._record.stages))
        try:
            self._fill(made)
            new = self._renewed(made.generation)
            new.write(self._path)
        except BaseException:
            self._store.sweep()
            raise
        made.sweep()
        self._pending.remove_all()
        for file in self._path.glob(_MAPS):  # of the first stage that was
            file.unlink(missing_ok=True)
        made.close()
        return new

    def _fill(self, made: "LanceStore") -> None:
        present, _ = self._present()
        ids, vectors = self._pending.all()
        there = np.isin(ids, present)
        if there.any():
            made.promote(0, ids[there], vectors[there])
        for place in range(1, len(self._record.stages)):
            known = self._store.later(place, 0)
            there = np.isin(known.ids, present)
            if there.any():
                made.promote(place, known.ids[there], known.vectors[there])

    def _renewed(self, generation: int) -> Record:
        """The record; what was learnt of the old first stage isn't in it."""
        return replace(
            self._record,
            stages=[recorded(self._asked.first), *self._record.stages[1:]],
            m=tuple(self._asked.m),
            plan=None,
            generation=generation,
            calibration=None,
            cutoff=None,
        )

    def _tell(self, number: int) -> None:
        if self._progress is not None and number:
            self._progress(number)


def check_renewable(record: Record, path: Path | None) -> None:
    """Raise `CollectionError` if a collection can't have another first stage."""
    if path is None:
        raise CollectionError("a collection in memory can't be migrated: make another one")
    if len(record.stages) < 2:
        raise CollectionError(
            f"{path} has one stage, which is the last too: make another collection"
        )
    if any(stage.resumes is not None for stage in record.stages):
        raise CollectionError(
            f"a later stage of {path} goes on from the states of the first, which can't be another "
            "one: make another collection"
        )
