"""Embeddings of a stage that a collection is to have: a table beside those that it has.

It is there as long as its stage is encoding, also over many runs, and nobody who searches reads it.
"""

import shutil
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa

from cascade.storing.store import Ids, Vectors
from cascade.storing.table import Table

_PREFIX = "coming-"


class Pending:
    """The table of one stage; one thread of one process at a time adds to it."""

    def __init__(self, path: Path, name: str, precision: Any) -> None:
        """Open it, or make one that is empty.

        Args:
            path: the collection's directory.
            name: of the stage, as letters and digits.
            precision: what embeddings are kept in.
        """
        self._path = path
        self._precision = np.dtype(precision)
        self._file = f"{_PREFIX}{name}-{self._precision.name}"
        self._table = Table(lancedb.connect(str(path)), path, self._file)

    def ids(self) -> Ids:
        """The ids of the images that are encoded, ascending."""
        with self._table.reading():
            found = self._table.read(["id"], None)
        return np.empty(0, np.int64) if found is None else np.unique(found["id"].to_numpy())

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """Add embeddings [n, d]; they last once this returns."""
        values = np.ascontiguousarray(vectors, self._precision)
        lists = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
        self._table.append(pa.table({"id": ids, "vector": lists}))

    def all(self) -> tuple[Ids, Vectors]:
        """Ids, ascending and each once, and their embeddings [n, d]."""
        with self._table.reading():
            ids, vectors = self._table.read_vectors(None, self._precision)
        every, places = np.unique(ids, return_index=True)
        return every, vectors[places]

    def close(self) -> None:
        """Let go of the table."""
        self._table.close()

    def remove_all(self) -> None:
        """Remove this table and those of other stages that were to come."""
        self.close()
        for directory in self._path.glob(f"{_PREFIX}*.lance"):
            shutil.rmtree(directory, ignore_errors=True)
