"""The first stage's table, read where it is: beyond what fits in memory.

Its inverted file is Lance's IVF_FLAT: the lists hold the vectors themselves, as they are stored. It
takes the bytes of the table once more, and at the same recall it was faster than lists of codes
(IVF_SQ), of which more candidates have to be read from the table to be scored.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cascade.storing.errors import CollectionError
from cascade.storing.store import Embeddings, Ids, Lists, Vectors
from cascade.storing.table import Table, read_again

_NAME = "lists-"
_ITERATIONS = 20
_SAMPLED = 64  # embeddings of each list that its centre is learnt from
_AMONG = 4096
"""Ids in one condition."""


class StoredFirst:
    """See `FirstEmbeddings`."""

    def __init__(self, connection: Any, path: Path, name: str, precision: Any) -> None:
        """Read a table that may not be there yet.

        Args:
            connection: of lancedb.
            path: its directory.
            name: of the table.
            precision: what embeddings are kept in.
        """
        self._connection = connection
        self._path = path
        self._name = name
        self._precision = precision
        self._table = self._opened()
        self._known: tuple[int, Lists | None] = (0, None)  # at a version of the table

    def shape(self) -> tuple[int, int]:
        """See `FirstEmbeddings`."""
        return read_again(self._path, self._table, lambda _: self._table.shape())

    def ids(self, lowest: int) -> Ids:
        """See `FirstEmbeddings`."""

        def read(_: int) -> Ids:
            found = self._table.read(["id"], f"id >= {lowest}" if lowest else None)
            return np.empty(0, np.int64) if found is None else found["id"].to_numpy()

        return read_again(self._path, self._table, read)

    def of(self, ids: Ids) -> Embeddings:
        """See `FirstEmbeddings`."""

        def read(version: int) -> Embeddings:
            parts = [
                self._table.read_vectors(where, self._precision)
                for where in _conditions(np.unique(ids))
            ]
            found = [part for part in parts if len(part[0])]
            if not found:
                return Embeddings(version, *self._table.read_vectors("false", self._precision))
            return Embeddings(
                version,
                np.concatenate([some for some, _ in found]),
                np.concatenate([vectors for _, vectors in found]),
            )

        return read_again(self._path, self._table, read)

    def blocks(self, lowest: int = 0) -> Iterator[Embeddings]:
        """See `FirstEmbeddings`.

        Raises:
            CollectionError: it can't be read to its end.
        """
        table = self._opened()  # of its own: others needn't wait until all is read
        try:
            version = table.newest()
            for ids, vectors in table.batches(
                self._precision, f"id >= {lowest}" if lowest else None
            ):
                yield Embeddings(version, ids, vectors)
        except (OSError, RuntimeError, ValueError) as error:
            said = " ".join(str(error).split())
            raise CollectionError(f"{self._path} can't be read: {said}") from error
        finally:
            table.close()

    def nearest(self, query: Vectors, number: int, probes: int) -> Embeddings:
        """See `FirstEmbeddings`."""

        def read(version: int) -> Embeddings:
            return Embeddings(version, *self._table.nearest(query, number, probes))

        return read_again(self._path, self._table, read)

    def lists(self) -> Lists | None:
        """See `FirstEmbeddings`; while others take their place there are none."""

        def read(version: int) -> Lists | None:
            if version != self._known[0]:
                found = self._table.indices()
                only = found[0] if len(found) == 1 else None
                lists = None if only is None else _lists(*only)
                self._known = version, lists
            return self._known[1]

        return read_again(self._path, self._table, read)

    def make_lists(self, number: int) -> None:
        """See `FirstEmbeddings`."""
        from lancedb.index import IvfFlat  # here: what is missing was said by whoever made a store

        how = IvfFlat(
            distance_type="dot",
            num_partitions=number,
            max_iterations=_ITERATIONS,
            sample_rate=_SAMPLED,
        )
        self._table.make_index(how, f"{_NAME}{number}")

    def extend_lists(self) -> None:
        """See `FirstEmbeddings`."""
        self._table.extend_index()

    def close(self) -> None:
        """Let go of files."""
        self._table.close()

    def _opened(self) -> Table:
        return Table(self._connection, self._path, self._name)


def _conditions(ids: Ids) -> Iterator[str]:
    """What rows of these ids fulfil, some at a time."""
    for start in range(0, len(ids), _AMONG):
        some = ids[start : start + _AMONG]
        yield f"id IN ({','.join(map(str, some.tolist()))})"


def _lists(name: str, rows: int, outside: int) -> Lists | None:
    """The lists of an index; None: it is not one of ours."""
    number = name.removeprefix(_NAME)
    return Lists(int(number), rows, outside) if number.isdecimal() else None
