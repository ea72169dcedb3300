"""What later stages have encoded and no store has yet: handed over in batches.

Many small commits ruin a table, and a search shouldn't wait for a disk. What is lost when a
process is killed is work that is done again: nobody was told that it was done.
"""

import threading
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from cascade.storing.store import Ids, Store

AT_ONCE = 512
"""How many are handed over at the latest."""
SECONDS = 2.0
"""After how long the first is handed over at the latest."""
SECONDS_AGAIN = 30.0
"""After how long those that couldn't be are tried again."""


class Promotions:
    """Embeddings of later stages on their way to a store. Any thread may note some."""

    def __init__(self, due: Callable[[], None]) -> None:
        """Make an empty one.

        Args:
            due: called by a thread of its own when something should be handed over.
        """
        self._due = due
        self._waiting: dict[int, list[tuple[Ids, Tensor]]] = {}
        self._count = 0
        self._timer: threading.Timer | None = None
        self._stopped = False
        self._lock = threading.Lock()
        self._handing_over = threading.Lock()

    def __len__(self) -> int:
        """Number of embeddings that no store has yet."""
        return self._count

    def note(self, place: int, ids: Ids, embeddings: Tensor) -> None:
        """Take the embeddings [n, d] that a stage made of n images."""
        if not len(ids):
            return
        with self._lock:
            self._waiting.setdefault(place, []).append((ids, embeddings))
            self._count += len(ids)
            if self._stopped:
                return
            if self._timer is None:
                self._start(SECONDS)
            elif self._count >= AT_ONCE > self._count - len(ids):
                self._timer.cancel()
                self._start(0)

    def hand_over(self, store: Store) -> int:
        """Write all to a store, one commit for each stage; says how many were new to it.

        What can't be written stays.
        """
        with self._handing_over:
            new = 0
            for place in sorted(self._waiting):
                with self._lock:
                    parts = list(self._waiting[place])
                if parts:
                    ids = np.concatenate([ids for ids, _ in parts])
                    vectors = torch.cat([embeddings for _, embeddings in parts]).numpy()
                    with store.writing():
                        new += store.promote(place, ids, vectors)
                    self._forget(place, parts)
            return new

    def waiting(self) -> dict[int, int]:
        """How many of each stage's embeddings no store has yet."""
        with self._lock:
            return {
                place: sum(len(ids) for ids, _ in parts) for place, parts in self._waiting.items()
            }

    def again(self) -> None:
        """Have them handed over later, as they couldn't be now."""
        with self._lock:
            if self._count and self._timer is None and not self._stopped:
                self._start(SECONDS_AGAIN)

    def stop(self) -> None:
        """Call nobody any more."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            self._timer, self._stopped = None, True

    def _forget(self, place: int, parts: list[tuple[Ids, Tensor]]) -> None:
        with self._lock:
            del self._waiting[place][: len(parts)]
            self._count -= sum(len(ids) for ids, _ in parts)

    def _start(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._call)
        self._timer.daemon = True
        self._timer.start()

    def _call(self) -> None:
        with self._lock:
            self._timer = None
        self._due()
