"""A store that ends with its process: what a collection does, without a disk."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade.searching.states import STATE_LIMIT
from cascade.storing.rows import ImageRow
from cascade.storing.store import Embeddings, Ids, Images, Lists, States, Vectors

_BLOCK = 8192


@dataclass(frozen=True)
class _Row:
    written: int
    row: ImageRow


@dataclass
class _Table:
    """A stage's embeddings by id, and the version that each was written in."""

    version: int = 0
    vectors: dict[int, tuple[int, Vectors]] = field(default_factory=dict)

    def add(self, ids: Sequence[int], vectors: Vectors) -> None:
        self.version += 1
        new = {at: (self.version, vector.copy()) for at, vector in zip(ids, vectors, strict=True)}
        self.vectors = self.vectors | new

    def read(self, after: int, lowest: int) -> Embeddings:
        version, vectors = self.version, self.vectors
        ids = [at for at, (written, _) in vectors.items() if written > after and at >= lowest]
        found = [vectors[at][1] for at in ids]
        stacked = np.stack(found) if found else np.empty((0, 0), np.float32)
        return Embeddings(version, np.asarray(ids, np.int64), stacked)


class _First:
    """See `FirstEmbeddings`: here a search looks at all of them, whatever lists there are."""

    def __init__(self, table: _Table) -> None:
        self._table = table
        self._lists: Lists | None = None

    def shape(self) -> tuple[int, int]:
        vectors = self._table.read(0, 0).vectors
        return len(vectors), vectors.shape[1]

    def ids(self, lowest: int) -> Ids:
        return self._table.read(0, lowest).ids

    def of(self, ids: Ids) -> Embeddings:
        every = self._table.read(0, 0)
        return _some(every, np.flatnonzero(np.isin(every.ids, ids)))

    def blocks(self, lowest: int = 0) -> Iterator[Embeddings]:
        every = self._table.read(0, lowest)
        for start in range(0, len(every.ids), _BLOCK):
            yield _some(every, slice(start, start + _BLOCK))

    def nearest(self, query: Vectors, number: int, probes: int) -> Embeddings:
        every = self._table.read(0, 0)
        products = every.vectors.astype(np.float32) @ query.astype(np.float32)
        return _some(every, np.argsort(-products, kind="stable")[:number])

    def lists(self) -> Lists | None:
        if self._lists is None:
            return None
        return replace(self._lists, outside=self.shape()[0] - self._lists.rows)

    def make_lists(self, number: int) -> None:
        self._lists = Lists(number, self.shape()[0], 0)

    def extend_lists(self) -> None:
        if self._lists is not None:
            self._lists = replace(self._lists, rows=self.shape()[0])


def _some(every: Embeddings, places: Any) -> Embeddings:
    return Embeddings(every.version, every.ids[places], every.vectors[places])


class MemoryStore:
    """A `Store` in memory, of one process."""

    def __init__(self, stages: int, precision: str = "float16") -> None:
        """Make an empty one.

        Args:
            stages: how many there are.
            precision: what embeddings are kept in: "float16" or "float32".
        """
        self.precision = np.dtype(precision)
        self._version = 0
        self._next = 0
        self._rows: dict[int, _Row] = {}
        self._tables = [_Table() for _ in range(stages)]
        self._first = _First(self._tables[0])
        self._states: dict[int, npt.NDArray[np.uint8]] = {}
        self._lock = threading.RLock()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """See `Store`."""
        with self._lock:
            yield

    def version(self) -> int:
        """See `Store`."""
        return self._version

    def images(self, after: int) -> Images:
        """See `Store`."""
        with self._lock:
            version, rows = self._version, self._rows
        ids = sorted(at for at, kept in rows.items() if kept.written > after)
        found = [rows[at].row for at in ids]
        return Images(
            version,
            np.asarray(ids, np.int64),
            [row.key for row in found],
            np.asarray([row.reason is not None for row in found], bool),
            found,
            np.asarray(sorted(rows), np.int64),
        )

    def first(self, lowest: int) -> Embeddings:
        """See `Store`."""
        with self._lock:
            return self._tables[0].read(0, lowest)

    def first_embeddings(self) -> _First:
        """See `Store`."""
        return self._first

    def later(self, place: int, after: int) -> Embeddings:
        """See `Store`."""
        with self._lock:
            return self._tables[place].read(after, 0)

    def encoded(self, place: int) -> Ids:
        """See `Store`."""
        return np.asarray(list(self._tables[place].vectors), np.int64)

    def add(self, rows: Sequence[ImageRow], vectors: Vectors, replaces: bool) -> None:
        """See `Store`."""
        with self._lock:
            ids = range(self._next, self._next + len(rows))
            there = [at for at, row in zip(ids, rows, strict=True) if row.reason is None]
            keys = {row.key for row in rows}
            stay = self._rows
            if replaces:
                stay = {at: kept for at, kept in stay.items() if kept.row.key not in keys}
            self._tables[0].add(there, vectors.astype(self.precision))
            self._next += len(rows)
            self._commit(stay | self._written(ids, rows))

    def change(self, ids: Sequence[int], rows: Sequence[ImageRow]) -> None:
        """See `Store`."""
        with self._lock:
            self._commit(self._rows | self._written(ids, rows))

    def remove(self, ids: Sequence[int]) -> None:
        """See `Store`."""
        with self._lock:
            gone = set(ids)
            self._commit({at: kept for at, kept in self._rows.items() if at not in gone})

    def promote(self, place: int, ids: Ids, vectors: Vectors) -> int:
        """See `Store`."""
        ids, first = np.unique(ids, return_index=True)
        vectors = vectors[first]
        with self._lock:
            table = self._tables[place]
            new = [n for n, at in enumerate(ids.tolist()) if at not in table.vectors]
            table.add(ids[new].tolist(), vectors[new].astype(self.precision))
            return len(new)

    def keep_states(self, ids: Ids, states: States) -> None:
        """See `Store`; the oldest make room for new ones."""
        with self._lock:
            self._states |= {at: row.copy() for at, row in zip(ids.tolist(), states, strict=True)}
            for at in list(self._states)[: max(0, len(self._states) - self._most_states())]:
                del self._states[at]

    def states(self, ids: Ids) -> tuple[Ids, States]:
        """See `Store`."""
        with self._lock:
            found = {at: self._states[at] for at in ids.tolist() if at in self._states}
        rows = np.stack(list(found.values())) if found else np.empty((0, 0), np.uint8)
        return np.asarray(list(found), np.int64), rows

    def release_states(self, ids: Ids) -> None:
        """See `Store`."""
        with self._lock:
            for at in ids.tolist():
                self._states.pop(at, None)

    def kept_states(self) -> tuple[int, int]:
        """See `Store`."""
        with self._lock:
            return len(self._states), max((len(row) for row in self._states.values()), default=0)

    def compact(self, keep_seconds: float) -> None:
        """See `Store`."""
        with self._lock:
            self._states = {at: row for at, row in self._states.items() if at in self._rows}
            for table in self._tables:
                table.vectors = {at: kept for at, kept in table.vectors.items() if at in self._rows}

    def nbytes(self) -> int:
        """See `Store`."""
        vectors = (vector for table in self._tables for _, vector in table.vectors.values())
        return sum(row.nbytes for row in (*vectors, *self._states.values()))

    def close(self) -> None:
        """See `Store`."""

    def _most_states(self) -> int:
        """Of how many images states may be kept."""
        return STATE_LIMIT // max((len(row) for row in self._states.values()), default=1)

    def _written(self, ids: Sequence[int], rows: Sequence[ImageRow]) -> dict[int, _Row]:
        return {at: _Row(self._version + 1, row) for at, row in zip(ids, rows, strict=True)}

    def _commit(self, rows: dict[int, _Row]) -> None:
        self._rows, self._version = rows, self._version + 1
