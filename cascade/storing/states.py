"""What a resuming stage goes on from, in a table of its own.

A row takes tens or hundreds of kilobytes, and is read for a few images at a time. So pieces are
only merged when the store is compacted: merging writes the table anew.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from cascade.storing.store import Ids, States
from cascade.storing.table import Table

_AT_ONCE = 4096
"""Ids in one condition."""


class KeptStates:
    """The table of states; what writes is called by whoever holds the store's lock."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def keep(self, ids: Ids, states: States) -> None:
        """Add rows."""
        values = pa.array(np.ascontiguousarray(states).ravel())
        lists = pa.FixedSizeListArray.from_arrays(values, states.shape[1])
        self.table.append(pa.table({"id": ids, "vector": lists}))

    def of(self, ids: Ids) -> tuple[Ids, States]:
        """The rows of those of these ids that have one."""
        if not len(ids):
            return ids, np.empty((0, 0), np.uint8)
        found, rows = self.table.read_vectors(_among(ids), np.uint8)
        once, places = np.unique(found, return_index=True)
        return once, rows[places]

    def release(self, ids: Ids) -> None:
        """Remove the rows of these ids."""
        gone = np.intersect1d(ids, self._ids())
        for start in range(0, len(gone), _AT_ONCE):
            self.table.remove(_among(gone[start : start + _AT_ONCE]))

    def keep_only(self, ids: Ids) -> None:
        """Remove the rows of all other ids."""
        self.release(np.setdiff1d(self._ids(), ids))

    def kept(self) -> tuple[int, int]:
        """How many rows there are, and the bytes of each."""
        ids = self._ids()
        if not len(ids):
            return 0, 0
        _, rows = self.of(ids[:1])
        return len(ids), rows.shape[1]

    def _ids(self) -> Ids:
        with self.table.reading():
            found: Any = self.table.read(["id"], None)
        return np.empty(0, np.int64) if found is None else np.unique(found["id"].to_numpy())


def _among(ids: Ids) -> str:
    return f"id IN ({','.join(map(str, ids.tolist()))})"
