"""A store in a directory: tables in the Lance format, one of images and one for each stage.

Needs no server, and is read by lancedb, duckdb, pandas and whatever else reads Arrow. Each call
that writes is one commit of the table of images, or of a stage's embeddings: embeddings are there
before the rows that they belong to, and nobody looks for those of rows that never came.

Ids come from the tables' versions, which only ever grow: no id is used twice, whatever was removed
or cut off in between.
"""

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

from cascade.storing.arrow import COLUMNS, ArrowKeys, ArrowRows
from cascade.storing.errors import CollectionError
from cascade.storing.first import StoredFirst
from cascade.storing.locks import CommitLock
from cascade.storing.rows import ImageRow
from cascade.storing.states import KeptStates
from cascade.storing.store import Embeddings, Ids, Images, States, Vectors
from cascade.storing.table import Table, read_again

try:
    import lancedb
    import pyarrow as pa
except ImportError as error:
    raise CollectionError(
        "a collection on disk needs lancedb: pip install 'clip-cascade[search]'"
    ) from error

_IMAGES = "images"
_STAGE = re.compile(r"(stage-\d+|states)(-\d+)?\.lance")
_ROWS_AT_ONCE = 1 << 20
_PIECES = 64
_MOST_PIECES = 256
_GROWTH = 0.25
_Read = TypeVar("_Read")
_KEEP_SECONDS = 600.0
_SCHEMA = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("written", pa.int64(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        *(pa.field(name, pa.int64()) for name in ("size", "modified")),
        *(pa.field(name, pa.string()) for name in ("digest", "reason", "metadata")),
    ]
)


class LanceStore:
    """A `Store` in a directory of this machine.

    The pieces of a table are merged, and its versions older than ten minutes removed, once there
    are 64 of them and it has grown by a quarter since the last time, or there are 256: merging
    writes the table anew, which must not happen for every few rows.
    """

    def __init__(
        self,
        path: Path,
        stages: int,
        precision: str = "float16",
        generation: int = 0,
        check: Callable[[], None] | None = None,
    ) -> None:
        """Open a store, or make an empty one.

        Args:
            path: a directory, which exists.
            stages: how many there are.
            precision: what embeddings are kept in: "float16" or "float32".
            generation: which tables of embeddings these are; the images' is always the same. At
                least as large as the number of versions that the first stage's had before.
            check: called by whoever has the right to write; raises where these are no longer the
                collection's tables.
        """
        self.path = path
        self.precision = np.dtype(precision)
        self.generation = generation
        self._check = check
        self._lock = CommitLock(path / "lock")
        connection = lancedb.connect(str(path))
        self._images = Table(connection, path, _IMAGES)
        self._watched = Table(connection, path, _IMAGES)
        names = (stage_table(place, generation) for place in range(stages))
        self._stages = [Table(connection, path, name) for name in names]
        self._first = StoredFirst(connection, path, stage_table(0, generation), self.precision)
        self._states = KeptStates(Table(connection, path, states_table(generation)))
        self._promoted: dict[int, tuple[int, Ids]] = {}  # by stage: ids, ascending, of a version

    @contextmanager
    def writing(self) -> Iterator[None]:
        """See `Store`."""
        with self._lock.held():
            if self._check is not None:
                self._check()
            yield

    def version(self) -> int:
        """See `Store`."""
        return self._watched.watched()

    def images(self, after: int) -> Images:
        """See `Store`."""
        where = f"written > {after}" if after else None

        def read(version: int) -> tuple[int, Any, Any]:
            found = self._images.read(["id", *COLUMNS], where)
            return version, found, self._images.read(["id"], None) if after else found

        version, found, present = self._again(self._images, read)
        if found is None:
            nothing = np.empty(0, np.int64)
            return Images(version, nothing, [], nothing.astype(bool), [], nothing)
        found = _by_id(found)
        return Images(
            version,
            _numbers(found, "id"),
            ArrowKeys(found["key"]),
            np.asarray(found["reason"].is_valid()),
            ArrowRows(found),
            np.sort(_numbers(present, "id")),
        )

    def first(self, lowest: int) -> Embeddings:
        """See `Store`."""
        return self._embeddings(0, f"id >= {lowest}" if lowest else None)

    def first_embeddings(self) -> StoredFirst:
        """See `Store`."""
        return self._first

    def later(self, place: int, after: int) -> Embeddings:
        """See `Store`."""
        if after and self._stages[place].newest() == after:
            return Embeddings(after, np.empty(0, np.int64), np.empty((0, 0), self.precision))
        return self._embeddings(place, f"written > {after}" if after else None)

    def encoded(self, place: int) -> Ids:
        """See `Store`."""
        return np.unique(self._again(self._stages[place], lambda _: self._ids_of(place)))

    def add(self, rows: Sequence[ImageRow], vectors: Vectors, replaces: bool) -> None:
        """See `Store`."""
        if len(rows) > _ROWS_AT_ONCE:
            raise ValueError(f"at most {_ROWS_AT_ONCE} rows are added at once, got {len(rows)}")
        with self._changing():
            ids = self.versions() * _ROWS_AT_ONCE + np.arange(len(rows))
            there = np.asarray([row.reason is None for row in rows], bool)
            if there.any():
                self._append(0, ids[there], vectors)
            self._write(ids, rows, "key" if replaces else None)

    def change(self, ids: Sequence[int], rows: Sequence[ImageRow]) -> None:
        """See `Store`."""
        with self._changing():
            self._write(np.asarray(ids, np.int64), rows, "id")

    def remove(self, ids: Sequence[int]) -> None:
        """See `Store`."""
        with self._changing():
            self._images.remove(f"id IN ({','.join(str(int(at)) for at in ids)})")

    def promote(self, place: int, ids: Ids, vectors: Vectors) -> int:
        """See `Store`."""
        ids, first = np.unique(ids, return_index=True)
        vectors = vectors[first]
        with self._changing():
            known = self._known(place)
            places = np.searchsorted(known, ids).clip(max=max(0, len(known) - 1))
            new = known[places] != ids if len(known) else np.ones(len(ids), bool)
            if new.any():
                self._append(place, ids[new], vectors[new])
                known = np.sort(np.concatenate([known, ids[new]]), kind="stable")
                self._promoted[place] = (self._stages[place].newest(), known)
            return int(new.sum())

    def keep_states(self, ids: Ids, states: States) -> None:
        """See `Store`."""
        with self._changing():
            self._states.keep(ids, states)

    def states(self, ids: Ids) -> tuple[Ids, States]:
        """See `Store`."""
        return self._again(self._states.table, lambda version: self._states.of(ids))

    def release_states(self, ids: Ids) -> None:
        """See `Store`."""
        with self._changing():
            self._states.release(ids)

    def kept_states(self) -> tuple[int, int]:
        """See `Store`."""
        return self._again(self._states.table, lambda version: self._states.kept())

    def compact(self, keep_seconds: float = _KEEP_SECONDS) -> None:
        """See `Store`."""
        with self._changing():
            with self._images.reading():
                rows = self._images.read(["id"], None)
            present = np.empty(0, np.int64) if rows is None else _numbers(rows, "id")
            for place, stage in enumerate(self._stages):
                gone = np.setdiff1d(self._ids_of(place), present)
                for start in range(0, len(gone), _ROWS_AT_ONCE // 16):
                    some = gone[start : start + _ROWS_AT_ONCE // 16]
                    stage.remove(f"id IN ({','.join(map(str, some.tolist()))})")
                stage.compact(timedelta(seconds=keep_seconds))
            self._states.keep_only(present)
            self._states.table.compact(timedelta(seconds=keep_seconds))
            self._images.compact(timedelta(seconds=keep_seconds))
            self.sweep()

    def successor(self, stages: int) -> "LanceStore":
        """The store of the next generation: the same images, and no embeddings yet.

        It writes by the same right, which whoever uses it holds.
        """
        made = LanceStore(self.path, stages, str(self.precision), self.versions())
        made._lock = self._lock
        return made

    def sweep(self) -> None:
        """Remove the tables of other generations, and what was cut off before it was one."""
        own = {f"{stage_table(at, self.generation)}.lance" for at in range(len(self._stages))}
        own.add(f"{states_table(self.generation)}.lance")
        for directory in self.path.iterdir():
            if _STAGE.fullmatch(directory.name) and directory.name not in own:
                shutil.rmtree(directory, ignore_errors=True)

    def versions(self) -> int:
        """How many versions its tables have had, of all generations; it grows with each `add`."""
        return self.generation + self._images.newest() + self._stages[0].newest()

    def nbytes(self) -> int:
        """See `Store`."""
        return sum(_size(file) for file in self.path.rglob("*"))

    def close(self) -> None:
        """See `Store`."""
        self._first.close()
        for table in (self._images, self._watched, *self._stages, self._states.table):
            table.close()

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Write, and say in one line what the disk has against it.

        Raises:
            CollectionError: the directory is full or can't be written.
        """
        with self.writing():
            try:
                yield
            except (OSError, RuntimeError) as error:
                raise CollectionError(_in_words(self.path, error)) from error

    def _write(self, ids: Ids, rows: Sequence[ImageRow], on: str | None) -> None:
        written = np.full(len(rows), self._images.newest() + 1)
        columns = [[getattr(row, name) for row in rows] for name in COLUMNS]
        table = pa.table([ids, written, *columns], schema=_SCHEMA)
        if on is None:
            self._images.append(table)
        else:
            self._images.merge(table, on)
        self._tidied(self._images)

    def _append(self, place: int, ids: Ids, vectors: Vectors) -> None:
        stage = self._stages[place]
        written = np.full(len(ids), stage.newest() + 1)
        values = np.ascontiguousarray(vectors, self.precision)
        lists = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
        stage.append(pa.table({"id": ids, "written": written, "vector": lists}))
        self._tidied(stage)

    def _tidied(self, table: Table) -> None:
        """Merge pieces if there are too many; each call may have written one."""
        if table.changes % (_PIECES // 4):
            return
        pieces, rows, grown = table.pieces()
        if pieces >= _MOST_PIECES or (pieces >= _PIECES and grown >= _GROWTH * rows):
            table.compact(timedelta(seconds=_KEEP_SECONDS))

    def _known(self, place: int) -> Ids:
        """The ids of what a later stage has encoded, ascending; those that were swept may stay."""
        stage = self._stages[place]
        version, known = self._promoted.get(place, (0, np.empty(0, np.int64)))
        with stage.reading() as newest:
            if newest != version:
                found = stage.read(["id"], f"written > {version}" if version else None)
                new = np.empty(0, np.int64) if found is None else _numbers(found, "id")
                known = np.union1d(known, new)
                self._promoted[place] = (newest, known)
        return known

    def _ids_of(self, place: int) -> Ids:
        with self._stages[place].reading():
            found = self._stages[place].read(["id"], None)
        return np.empty(0, np.int64) if found is None else _numbers(found, "id")

    def _embeddings(self, place: int, where: str | None) -> Embeddings:
        stage = self._stages[place]

        def read(version: int) -> Embeddings:
            return Embeddings(version, *stage.read_vectors(where, self.precision))

        return self._again(stage, read)

    def _again(self, table: Table, read: Callable[[int], _Read]) -> _Read:
        return read_again(self.path, table, read)


def stage_table(place: int, generation: int) -> str:
    """What the table of a stage's embeddings is called."""
    return f"stage-{place}-{generation}" if generation else f"stage-{place}"


def states_table(generation: int) -> str:
    """What the table of states is called, from which a stage that resumes goes on."""
    return f"states-{generation}" if generation else "states"


def _numbers(table: Any, name: str) -> Ids:
    return cast(Ids, table[name].to_numpy())


def _by_id(table: Any) -> Any:
    """A table sorted by id."""
    ids = _numbers(table, "id")
    if (ids[1:] < ids[:-1]).any():
        return table.take(np.argsort(ids, kind="stable")).combine_chunks()
    return table


def _size(file: Path) -> int:
    try:
        return file.stat().st_size if file.is_file() else 0
    except OSError:  # another process has just removed it
        return 0


def _in_words(path: Path, error: BaseException) -> str:
    """What the disk has against writing, in one line."""
    said = " ".join(str(error).split())
    lowered = said.lower()
    for sign in ("no space left", "os error 28", "quota", "file too large"):
        if sign in lowered:
            return (
                f"{path} can't grow, its disk is full: whatever was reported as done is kept; free "
                "some space and go on"
            )
    for sign in ("permission denied", "read-only file system"):
        if sign in lowered:
            return f"{path} can't be written ({sign}): make it writable and go on"
    return f"{path} can't be written: {said}"
