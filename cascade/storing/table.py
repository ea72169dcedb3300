"""One table in the Lance format, with the few calls that a store makes.

A table is not there before something was added to it. What its directory holds then, if whoever
was to make it was cut off, is no table.
"""

import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from cascade.storing.errors import CollectionError
from cascade.storing.store import Ids, Vectors
from cascade.storing.undisturbed import undisturbed

_TRIES = 4
_SETTLED = 1_000_000_000  # nanoseconds; file systems count in ticks of some milliseconds or more
_Read = TypeVar("_Read")
_ROWS_AT_ONCE = 8192  # of a batch that is read: smaller ones cost a change of threads each


class Table:
    """A table of a connection. Any thread may read; what writes is called by one at a time.

    Attributes:
        changes: how often something was written here.
    """

    def __init__(self, connection: Any, path: Path, name: str) -> None:
        self.changes = 0
        self._connection = connection
        self._directory = path / f"{name}.lance"
        self._name = name
        self._table: Any = None
        self._lock = threading.RLock()
        self._settled: tuple[int | None, int] = (None, 0)  # when it was changed, and the version

    def newest(self) -> int:
        """Move to the newest version; 0 if there is no table yet."""
        with self._lock:
            return self._version() if self._found() else 0

    def watched(self) -> int:
        """`newest`, at the cost of a look at a directory where nothing was written for a while.

        A commit puts a file into it, which changes its time; what was changed a moment ago may
        change again at the same time.

        Raises:
            CollectionError: it can't be read.
        """
        try:
            changed = os.stat(self._directory / "_versions").st_mtime_ns
        except OSError:
            changed = None
        known, version = self._settled
        if changed is not None and changed == known:
            return version
        now = time.time_ns()
        version = read_again(self._directory.parent, self, lambda version: version)
        if changed is not None and now - changed > _SETTLED:
            self._settled = changed, version
        return version

    @contextmanager
    def reading(self) -> Iterator[int]:
        """The newest version, which is the one that is read inside."""
        with self._lock:
            yield self.newest()

    def read(self, columns: list[str], where: str | None) -> Any:
        """Columns of all rows, or of those that fulfil a condition: an Arrow table; None: no table.

        Of the version that `newest` moved to.
        """
        return None if self._table is None else self._query(columns, where).to_arrow()

    def read_vectors(self, where: str | None, precision: Any) -> tuple[Ids, Vectors]:
        """Ids [n] and vectors [n, d]: batches that are copied to where they stay."""
        if self._table is None:
            return np.empty(0, np.int64), np.empty((0, 0), precision)
        batches = self._query(["id", "vector"], where).to_batches(_ROWS_AT_ONCE)
        if where is not None:
            parts = [_numbers_of(batch) for batch in batches if batch.num_rows]
            if not parts:
                return np.empty(0, np.int64), np.empty((0, 0), precision)
            return (
                np.concatenate([ids for ids, _ in parts]),
                np.concatenate([vectors for _, vectors in parts]),
            )
        count, dimension = self._table.count_rows(), self._table.schema.field("vector").type
        all_ids = np.empty(count, np.int64)
        all_vectors = np.empty((count, dimension.list_size), precision)
        start = 0
        for batch in batches:
            stop = start + batch.num_rows
            all_ids[start:stop], all_vectors[start:stop] = _numbers_of(batch)
            start = stop
        return all_ids, all_vectors

    def batches(self, precision: Any, where: str | None) -> Iterator[tuple[Ids, Vectors]]:
        """Ids [n] and vectors [n, d] of a few rows at a time, which are not held after that."""
        if self._table is None:
            return
        for batch in self._query(["id", "vector"], where).to_batches(_ROWS_AT_ONCE):
            if batch.num_rows:
                ids, vectors = _numbers_of(batch)
                yield ids, vectors.astype(precision, copy=False)

    def shape(self) -> tuple[int, int]:
        """Rows and the dimension of their vectors; 0 and 0 if there is no table."""
        if self._table is None:
            return 0, 0
        vector = self._table.schema.field("vector").type
        return self._table.count_rows(), vector.list_size

    def nearest(self, query: Vectors, number: int, probes: int) -> tuple[Ids, Vectors]:
        """Ids and vectors of the rows with the largest products, as far as the index finds them."""
        if self._table is None:
            return np.empty(0, np.int64), np.empty((0, 0), query.dtype)
        search = self._table.search(query, vector_column_name="vector").distance_type("dot")
        found = search.select(["id", "vector", "_distance"]).nprobes(probes).limit(number)
        table = found.to_arrow()
        return _numbers_of({name: table[name].combine_chunks() for name in ("id", "vector")})

    def indices(self) -> list[tuple[str, int, int]]:
        """Of each index of vectors its name, the rows in it, and those that are in none."""
        if self._table is None:
            return []
        names = [index.name for index in self._table.list_indices() if index.columns == ["vector"]]
        found = [(name, self._table.index_stats(name)) for name in names]
        return [
            (name, int(stats.num_indexed_rows), int(stats.num_unindexed_rows))
            for name, stats in found
            if stats is not None
        ]

    def make_index(self, how: Any, name: str) -> None:
        """Make an index of vectors, and then remove all others; until then these are used.

        It takes minutes, so an interrupt doesn't wait for it: a table needs no index, and one that
        is committed after all does no harm.
        """
        with self._lock:
            if not self._found():
                return
            others = [known for known, _, _ in self.indices() if known != name]
            self._table.create_index("vector", config=how, name=name, replace=True)
            for other in others:
                self._table.drop_index(other)

    def extend_index(self) -> None:
        """Take rows into the index that are in none."""
        with self._lock:
            if self._found():
                undisturbed(lambda: self._table.optimize())

    def append(self, rows: Any) -> None:
        """Add rows, an Arrow table; it is made of them if it wasn't there."""
        with self._lock:
            self.changes += 1
            if self._found():
                undisturbed(lambda: self._table.add(rows))
            else:
                undisturbed(lambda: self._connection.create_table(self._name, rows))

    def merge(self, rows: Any, on: str) -> None:
        """Add rows in one commit; a row that has the same value in column `on` is replaced."""
        with self._lock:
            self.changes += 1
            if self._found():
                merged = self._table.merge_insert(on).when_matched_update_all()
                undisturbed(lambda: merged.when_not_matched_insert_all().execute(rows))
            else:
                self.append(rows)

    def remove(self, where: str) -> None:
        """Remove the rows that fulfil a condition."""
        with self._lock:
            self.changes += 1
            if self._found():
                undisturbed(lambda: self._table.delete(where))

    def pieces(self) -> tuple[int, int, int]:
        """How many pieces the table is in, its rows, and how many of them the largest lacks."""
        with self._lock:
            if not self._found():
                return 0, 0, 0
            stats = self._table.stats()
            pieces = stats["fragment_stats"]
            rows = int(stats["num_rows"])
            return int(pieces["num_fragments"]), rows, rows - int(pieces["lengths"]["max"])

    def compact(self, keep: timedelta) -> None:
        """Merge small pieces, and remove versions older than that and what was never committed."""
        with self._lock:
            if self._found():
                undisturbed(lambda: self._optimise(keep))

    def close(self) -> None:
        """Let go of the table."""
        with self._lock:
            self._table = None

    def _found(self) -> bool:
        """Whether there is a table; if so, it is at its newest version from here on."""
        if self._table is not None:
            self._table.checkout_latest()
        elif any(self._directory.glob("_versions/*.manifest")):
            self._table = self._connection.open_table(self._name)
        return self._table is not None

    def _optimise(self, keep: timedelta) -> None:
        with warnings.catch_warnings():  # of a `keep` of nothing, which was asked for
            warnings.simplefilter("ignore", UserWarning)
            self._table.optimize(cleanup_older_than=keep, delete_unverified=True)

    def _version(self) -> int:
        return int(self._table.version)

    def _query(self, columns: list[str], where: str | None) -> Any:
        query = self._table.search().select(columns).limit(None)
        return query if where is None else query.where(where)


def read_again(path: Path, table: Table, read: Callable[[int], _Read]) -> _Read:
    """Read the newest version, and anew where its files were removed meanwhile.

    Raises:
        CollectionError: it can't be read.
    """
    for _ in range(_TRIES):
        try:
            with table.reading() as version:
                return read(version)
        except (OSError, RuntimeError, ValueError) as error:
            failed = error
    raise CollectionError(f"{path} can't be read: {' '.join(str(failed).split())}") from failed


def _numbers_of(batch: Any) -> tuple[Ids, Vectors]:
    """Ids [n] and vectors [n, d] of a batch."""
    ids = batch["id"].to_numpy()
    values = batch["vector"].flatten().to_numpy()
    return ids, values.reshape(len(ids), -1)
