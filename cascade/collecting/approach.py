"""How a collection's first stage is searched: all of it in memory, or by lists where it is stored.

Decided when a collection is opened, and again when it has outgrown memory.
"""

from pathlib import Path

import numpy as np

from cascade.inverted.fitting import INDEXES, Index, fits
from cascade.inverted.record import EXACTLY, Inverted, InvertedFile, searched
from cascade.storing.store import Store

_GROWTH = 1.1  # by how much embeddings grow in memory until one looks again


class Approach:
    """What was asked for, and what follows from it.

    Attributes:
        asked: "auto", "exact" or "ivf".
        file: what is known of the lists.
    """

    def __init__(
        self, asked: Index, store: Store, path: Path | None, generation: int, precision: str
    ) -> None:
        """Decide nothing yet.

        Args:
            asked: "auto": by lists if the embeddings don't fit in memory.
            store: of the collection.
            path: its directory; None: it is in memory in any case.
            generation: of its tables.
            precision: what embeddings are kept in.

        Raises:
            ValueError: something else was asked for.
        """
        if asked not in INDEXES:
            raise ValueError(f"index is one of {', '.join(INDEXES)}, not {asked!r}")
        self.asked = asked
        self.file = InvertedFile(path, generation)
        self._first = store.first_embeddings()
        self._bytes = np.dtype(precision).itemsize
        self._in_memory = path is None
        self._seen = 0
        self._too_large = False

    def stored(self) -> InvertedFile | None:
        """What a view is given: the lists by which it searches; None: all is held in memory."""
        if self.asked == "exact" or (self.asked == "auto" and self._fits()):
            return None
        return self.file

    def counted(self) -> tuple[str, Inverted | None]:
        """In a few words how whoever opens it now searches, and what was measured of the lists."""
        file = self.stored()
        if file is None:
            return EXACTLY, None
        found = file.in_use(self._first)
        return searched(found), found

    def outgrown(self, held: int) -> bool:
        """Whether what is held in memory, so many bytes, is by now more than fits.

        Then `stored` is of lists from here on.
        """
        if self.asked != "auto" or self._in_memory or held <= _GROWTH * self._seen:
            return False
        if fits(held, held):
            self._seen = held
            return False
        self._too_large = True
        return True

    def _fits(self) -> bool:
        if self._in_memory:
            return True
        rows, dimension = self._first.shape()
        return not self._too_large and fits(rows * dimension * self._bytes)
