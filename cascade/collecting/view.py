"""What a store holds, to be searched: a cascade that is filled from a store and from nowhere else.

A view reads all at first, and then only what is new. Images that were removed or replaced are
hidden; if there are many, a new view is better.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeAlias, cast, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cascade.calibrated.calibration import Calibration, Candidates
from cascade.calibrated.cutoff import Cutoff
from cascade.cascade import Cascade
from cascade.inverted.record import InvertedFile
from cascade.inverted.rows import StoredRows
from cascade.searching.blocks import FirstRows
from cascade.searching.catalogue import Contents
from cascade.searching.column import Column, Selected
from cascade.searching.embeddings import Rows
from cascade.searching.packing import unpacked
from cascade.searching.states import States
from cascade.stages.images import ImageSource
from cascade.stages.stage import Encoder
from cascade.storing.errors import CollectionError
from cascade.storing.rows import ImageRow
from cascade.storing.store import Embeddings, Ids, Images, Store, places_in

Opener: TypeAlias = Callable[[ImageRow], ImageSource]
"""How an image is opened again: a path, or whatever else an `ImageSource` is."""
Promoted: TypeAlias = Callable[[int, Ids, Tensor], None]

_TRIES = 5
_HIDDEN_AT_LEAST = 1000
_HIDDEN_SHARE = 0.1


class View:
    """A cascade over what a store holds. One thread at a time refreshes it, any may search.

    Attributes:
        cascade: what is searched.
        skipped: rows of images that were skipped, by id.
    """

    def __init__(
        self,
        store: Store,
        stages: Sequence[Encoder],
        m: Candidates | None,
        batch_size: int,
        opener: Opener,
        promoted: Promoted,
        precision: str,
        calibration: Calibration | None = None,
        cutoff: Cutoff | None = None,
        stored: InvertedFile | None = None,
    ) -> None:
        """Make an empty one; `refresh` fills it.

        Args:
            store: what it shows.
            stages: as of `Cascade`.
            m: as of `Cascade`.
            batch_size: as of `Cascade`.
            opener: how an image is opened again.
            promoted: told what a later stage has encoded: its place, ids, embeddings [n, d].
            precision: as of `Cascade`.
            calibration: as of `Cascade`.
            cutoff: as of `Cascade`.
            stored: what is known of the lists by which the first stage is searched where it is
                stored; None: its embeddings are read into memory.

        Raises:
            ValueError: as of `Cascade`.
        """
        self.cascade = Cascade(
            stages, m, batch_size, precision=precision, calibration=calibration, cutoff=cutoff
        )
        if stored is not None:
            rows = StoredRows.none(store.first_embeddings(), stored)
            self.cascade.catalogue.contents = Contents(rows)
        self.skipped: dict[int, ImageRow] = {}
        self._store = store
        self._opener = opener
        self._version = 0
        for stage in self.cascade.later:
            stage.noted = partial(self._promote, promoted, stage.place)
        if self.cascade.catalogue.states is not None:
            self.cascade.catalogue.states.elsewhere = self._stored_states
        self._marks = {stage.place: 0 for stage in self.cascade.later}
        self._ids = np.empty(0, np.int64)  # by position; ascending
        self._rows: Column[ImageRow] = Column()
        self._skipped_ids: dict[str, int] = {}

    @property
    def held(self) -> int:
        """Bytes of the first stage's embeddings that are in memory."""
        rows = self.cascade.catalogue.contents.rows
        return rows.buffer.nbytes if isinstance(rows, Rows) else 0

    @property
    def crowded(self) -> bool:
        """Whether so many images are hidden that a new view is better."""
        hidden = len(self.cascade.catalogue.contents.gone)
        return hidden > max(_HIDDEN_AT_LEAST, _HIDDEN_SHARE * len(self._ids))

    def is_current(self) -> bool:
        """Whether the store's images are those that were read last."""
        return self._store.version() == self._version

    def refresh(self) -> None:
        """Read what is new.

        Raises:
            CollectionError: an image has no embedding.
        """
        # later stages first: whatever they encoded, its image was there before
        later = {place: self._store.later(place, mark) for place, mark in self._marks.items()}
        if not self.is_current():
            self._read_images()
        for place, new in later.items():
            self._take_later(place, new)

    def positions(self, ids: Ids) -> Ids:
        """Where the images of these ids are; -1: not here."""
        return places_in(self._ids, ids)

    def ids(self, positions: Sequence[int] | Tensor) -> Ids:
        """The ids of the images at these positions."""
        return self._ids[np.asarray(positions, np.int64)]

    def id_of(self, key: str) -> int | None:
        """The id of a row, also of a skipped one."""
        position = self.cascade.catalogue.position(key)
        return self._skipped_ids.get(key) if position is None else int(self._ids[position])

    def row(self, key: str) -> ImageRow | None:
        """The row of a key, also of a skipped one."""
        position = self.cascade.catalogue.position(key)
        if position is not None:
            return self._rows[position]
        skipped = self._skipped_ids.get(key)
        return None if skipped is None else self.skipped[skipped]

    def row_of(self, number: int) -> ImageRow | None:
        """The row of an id whose image can be found."""
        position = int(self.positions(np.asarray([number], np.int64))[0])
        contents = self.cascade.catalogue.contents
        if position < 0 or position >= contents.rows.count or position in contents.gone:
            return None
        return self._rows[position]

    def resumed(self) -> Ids:
        """The ids of images that have been resumed, and whose states nobody needs any more."""
        states = self.cascade.catalogue.states
        for stage in self.cascade.later:
            if states is not None and stage.resumes_from is states:
                return self._ids[stage.store.held.positions]
        return np.empty(0, np.int64)

    def rows(self) -> Iterator[ImageRow]:
        """All rows, in the order in which images were added, skipped ones last."""
        contents = self.cascade.catalogue.contents
        for at, row in enumerate(self._rows.first(contents.rows.count)):
            if at not in contents.gone:
                yield row
        yield from list(self.skipped.values())

    def ids_and_rows(self, positions: Sequence[int]) -> tuple[Ids, list[ImageRow]]:
        """The ids and rows of images at positions."""
        return self._ids[list(positions)], [self._rows[at] for at in positions]

    def _read_images(self) -> None:
        self._align()
        for _ in range(_TRIES):
            new = self._store.images(self._version)
            fresh = ~new.skipped & (self.positions(new.ids) < 0)
            rows = self._with_more(new.ids[fresh])
            if rows is not None:
                self._take(new, fresh, rows)
                return
        raise CollectionError(
            "the collection is damaged: an image has no embedding. Add it again under its key"
        )

    def _with_more(self, ids: Ids) -> FirstRows | None:
        """The first stage's embeddings with those of more, ascending ids; None: one was swept."""
        rows = self.cascade.catalogue.contents.rows
        if not len(ids):
            return rows
        lowest = int(ids[0]) if len(self._ids) else 0
        if isinstance(rows, StoredRows):
            known = np.sort(rows.source.ids(lowest))
            return None if (places_in(known, ids) < 0).any() else rows.with_ids(ids)
        found = self._store.first(lowest)
        vectors = found.vectors
        if not np.array_equal(found.ids, ids):  # else as they were written: nothing is copied
            order = np.argsort(found.ids, kind="stable")
            places = places_in(found.ids[order], ids)
            if (places < 0).any():
                return None
            vectors = vectors[order[places]]
        return cast(Rows, rows).with_more(torch.from_numpy(vectors))

    def _take(self, new: Images, fresh: npt.NDArray[np.bool_], rows: FirstRows) -> None:
        """Show new rows and hide those that are no longer there."""
        gone = np.flatnonzero(places_in(new.present, self._ids) < 0)
        hidden = set(gone.tolist()) - self.cascade.catalogue.contents.gone
        skipped = np.asarray(list(self.skipped), np.int64)
        for at in skipped[places_in(new.present, skipped) < 0].tolist():
            self._forget_skipped(at)
        known = np.flatnonzero(~new.skipped & ~fresh)
        for place, at in zip(known.tolist(), self.positions(new.ids[known]).tolist(), strict=True):
            self._renew(at, new.rows[place])
        for place in np.flatnonzero(new.skipped).tolist():
            self._skip(int(new.ids[place]), new.rows[place])
        if hidden or fresh.any():
            self._extend(new, np.flatnonzero(fresh), rows, hidden)
        self._version = new.version

    def _align(self) -> None:
        """Forget rows that were taken when an interrupt came, before the catalogue had them."""
        count = self.cascade.catalogue.contents.rows.count
        self._ids = self._ids[:count]

    def _extend(self, new: Images, places: Ids, embeddings: FirstRows, gone: set[int]) -> None:
        ids, keys, rows = new.ids, new.keys, new.rows
        if len(places) < len(ids):
            ids, keys, rows = ids[places], Selected(keys, places), Selected(rows, places)
        self._rows.put(len(self._ids), rows)
        self._ids = np.concatenate([self._ids, ids])
        self.cascade.catalogue.extend(keys, _Sources(self._open, ids), embeddings, instead_of=gone)

    def _renew(self, position: int, row: ImageRow) -> None:
        """Take over a row whose embeddings stay."""
        contents = self.cascade.catalogue.contents
        self._rows[position] = row
        if contents.keys[position] != row.key:
            self.cascade.catalogue.rename(position, row.key)

    def _skip(self, at: int, row: ImageRow) -> None:
        if at in self.skipped:
            self._forget_skipped(at)
        self.skipped[at] = row
        self._skipped_ids[row.key] = at

    def _forget_skipped(self, at: int) -> None:
        key = self.skipped.pop(at).key
        if self._skipped_ids.get(key) == at:
            del self._skipped_ids[key]

    def _take_later(self, place: int, new: Embeddings) -> None:
        stage = next(stage for stage in self.cascade.later if stage.place == place)
        positions = self.positions(new.ids)
        different, first = np.unique(positions, return_index=True)  # an earlier version wrote twice
        places = first[different >= 0]
        if len(places):
            vectors = new.vectors if len(places) == len(positions) else new.vectors[places]
            kept = positions if len(places) == len(positions) else positions[places]
            stage.store.fill(kept, torch.from_numpy(vectors))
        self._marks[place] = new.version

    def _promote(
        self, promoted: Promoted, place: int, positions: list[int], embeddings: Tensor
    ) -> None:
        promoted(place, self.ids(positions), embeddings)

    def _stored_states(self, positions: list[int]) -> dict[int, States]:
        """States that the store keeps of images at these positions."""
        ids, rows = self._store.states(self._ids[positions])
        if not len(ids):
            return {}
        states = unpacked(rows)
        places = self.positions(ids).tolist()
        return {position: states[row : row + 1] for row, position in enumerate(places)}

    def _open(self, at: int) -> ImageSource:
        """The image of an id, for a stage that has not encoded it yet."""
        row = self._rows[int(self.positions(np.asarray([at]))[0])]
        return self._opener(row)


class _Sources(Sequence[ImageSource]):
    """What opens the images of some ids, each made when it is asked for."""

    def __init__(self, open_id: Callable[[int], ImageSource], ids: Ids) -> None:
        self._open = open_id
        self._ids = ids

    def __len__(self) -> int:
        return len(self._ids)

    @overload
    def __getitem__(self, place: int) -> ImageSource: ...
    @overload
    def __getitem__(self, place: slice) -> "_Sources": ...
    def __getitem__(self, place: int | slice) -> "ImageSource | _Sources":
        if isinstance(place, slice):
            return _Sources(self._open, self._ids[place])
        return partial(self._open, int(self._ids[place]))
