"""The embeddings that one stage has made so far, in memory.

What others see changes in one step: rows are written behind those that are visible, and then a new
snapshot replaces the old one. If an error or an interrupt ends a writer before that step, the old
one stays, and a reader keeps the one that it took.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cascade.searching.blocks import Blocks
from cascade.searching.products import length_of_longest
from cascade.searching.ranking import Ranking, rank_all

Positions: TypeAlias = Sequence[int] | npt.NDArray[np.int64] | Tensor

_ABSENT = -1
_BLOCK = 8192
_Kind = TypeVar("_Kind", bound=np.generic)


@dataclass(frozen=True)
class Rows:
    """Embeddings [count, d], the first of a buffer that has room for more: float32 or float16.

    `longest` is the largest length among them. What a snapshot shows never changes; `with_more`
    writes behind it, so only the newest may be given more, by one thread at a time.
    """

    buffer: npt.NDArray[Any]
    count: int = 0
    longest: float = 0.0

    @classmethod
    def none(cls, precision: str = "float32") -> "Rows":
        """No rows yet, of any dimension, to be kept in float32 or float16."""
        return cls(np.empty((0, 0), precision))

    @classmethod
    def of(cls, embeddings: Tensor) -> "Rows":
        """These rows [n, d], kept as they are: float32 or float16."""
        return cls.none(str(embeddings.dtype).removeprefix("torch.")).with_more(embeddings)

    @property
    def embeddings(self) -> Tensor:
        """All of them [count, d] (a view)."""
        return torch.from_numpy(self.buffer[: self.count])

    @property
    def dimension(self) -> int:
        """See `FirstRows`."""
        return int(self.buffer.shape[1])

    @property
    def how(self) -> str:
        """See `FirstRows`."""
        return "exactly, in memory"

    def ranked(self, queries: Tensor, wanted: int, gone: Tensor) -> Ranking:
        """See `FirstRows`."""
        return rank_all(self.embeddings, queries, wanted, self.longest, gone)

    def ranked_exactly(self, queries: Tensor, wanted: int, gone: Tensor) -> Ranking:
        """See `FirstRows`."""
        return self.ranked(queries, wanted, gone)

    def at(self, positions: Tensor) -> Tensor:
        """See `FirstRows`."""
        return self.embeddings[positions]

    def blocks(self, start: int = 0) -> Blocks:
        """See `FirstRows`."""
        embeddings = self.embeddings
        for first in range(start, self.count, _BLOCK):
            some = embeddings[first : first + _BLOCK]
            yield torch.arange(first, first + len(some)), some

    def with_more(self, embeddings: Tensor) -> "Rows":
        """These rows and [n, d] after them, in the type that these have.

        The first are kept as they are if they have that type: whoever gave them leaves them alone.

        Raises:
            ValueError: the dimension differs from that of the rows before.
        """
        if not len(embeddings):
            return self
        if self.count and embeddings.shape[1] != self.buffer.shape[1]:
            raise ValueError(
                f"embeddings have {embeddings.shape[1]} dimensions, "
                f"those before had {self.buffer.shape[1]}"
            )
        count = self.count + len(embeddings)
        if not self.count and embeddings.dtype == torch.from_numpy(self.buffer).dtype:
            return Rows(embeddings.contiguous().numpy(), count, length_of_longest(embeddings))
        before = self.buffer.reshape(len(self.buffer), embeddings.shape[1])
        buffer = _with_room(before, self.count, count)
        new = torch.from_numpy(buffer[self.count : count]).copy_(embeddings)
        return Rows(buffer, count, max(self.longest, length_of_longest(new)))

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy has a buffer of its own, without the room."""
        return Rows, (self.buffer[: self.count].copy(), self.count, self.longest)


@dataclass(frozen=True)
class Held:
    """A snapshot of a store: rows, and the position in the collection that each belongs to.

    `owners` [≥ count] are the rows' positions. `places` says for a position which row may be its
    own; it may hold leftovers of a writer that was interrupted, so `owners` decides.
    """

    rows: Rows
    owners: npt.NDArray[np.int64]
    places: npt.NDArray[np.int64]

    @classmethod
    def none(cls, precision: str) -> "Held":
        """Of an empty store."""
        return cls(Rows.none(precision), np.empty(0, np.int64), np.empty(0, np.int64))

    @property
    def positions(self) -> npt.NDArray[np.int64]:
        """Those of the rows [count]."""
        return self.owners[: self.rows.count]

    def slots(self, positions: Positions) -> Tensor:
        """Which row is each position's: int64, negative where there is none."""
        asked = np.asarray(positions, dtype=np.int64)
        known = (asked >= 0) & (asked < len(self.places))
        slots = np.full_like(asked, _ABSENT)
        slots[known] = self.places[asked[known]]
        held = (slots >= 0) & (slots < self.rows.count)
        held[held] = self.owners[slots[held]] == asked[held]
        return torch.from_numpy(np.where(held, slots, _ABSENT))

    def __contains__(self, position: int) -> bool:
        """Whether there is a row of a position."""
        return bool(self.slots([position]) != _ABSENT)

    def with_more(self, positions: npt.NDArray[np.int64], embeddings: Tensor) -> "Held":
        """This and the embeddings [n, d] of n positions that are absent so far."""
        rows = self.rows.with_more(embeddings)
        owners = _with_room(self.owners, self.rows.count, rows.count)
        owners[self.rows.count : rows.count] = positions
        known = len(self.places)
        places = _with_room(self.places, known, max(known, positions.max() + 1))
        places[known:] = _ABSENT
        places[positions] = np.arange(self.rows.count, rows.count)
        return Held(rows, owners, places)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy has buffers of its own."""
        return Held, (self.rows, self.owners[: self.rows.count].copy(), self.places.copy())


class EmbeddingStore:
    """Embeddings [count, d] by position in the collection; grows, never forgets.

    A position is absent or holds an embedding. Any thread may read and add. `held` is what is
    stored now; take it once if several answers must belong together.
    """

    def __init__(self, precision: str = "float32") -> None:
        """Make an empty one.

        Args:
            precision: what embeddings are kept in, float32 or float16; those that are added are
                numbers of that type.
        """
        self.held = Held.none(precision)
        self._failures: dict[int, str] = {}
        self._lock = threading.RLock()

    def __len__(self) -> int:
        """Number of embeddings held."""
        return self.held.rows.count

    @property
    def embeddings(self) -> Tensor:
        """All embeddings [count, d], in the order in which they were added (a view)."""
        return self.held.rows.embeddings

    @property
    def failures(self) -> dict[int, str]:
        """Why the last try to encode a position failed, for positions that are still absent."""
        noted = self._failures.copy()
        absent = self.absent(list(noted)).tolist()
        return {
            position: noted[position]
            for position, still in zip(noted, absent, strict=True)
            if still
        }

    def add(self, positions: Positions, embeddings: Tensor) -> None:
        """Keep the embeddings [n, d] of n positions that are absent so far, all or none of them.

        Raises:
            ValueError: numbers differ, a position isn't absent, or the dimension differs from
                that of the embeddings held.
        """
        if embeddings.ndim != 2 or len(embeddings) != len(positions):
            raise ValueError(f"{len(positions)} images got embeddings {tuple(embeddings.shape)}")
        if not len(positions):
            return
        with self._lock:
            asked = np.asarray(positions, np.int64)
            if len(np.unique(asked)) < len(asked) or not self.absent(asked).all():
                raise ValueError("an image was encoded a second time by the same stage")
            self.held = self.held.with_more(asked, embeddings)
            for position in [at for at in self._failures if at in self.held]:
                self._failures.pop(position, None)

    def fill(self, positions: Positions, embeddings: Tensor) -> Tensor:
        """Keep the embeddings [n, d] of those of n different positions that are absent still.

        Returns:
            Which of the n these were: int64.
        """
        with self._lock:
            asked = np.asarray(positions, np.int64)
            new = self.absent(asked).nonzero().flatten()
            if len(new) < len(asked):
                asked, embeddings = asked[new.numpy()], embeddings[new]
            self.add(asked, embeddings)
            return new

    def fail(self, position: int, reason: str) -> None:
        """Note why the image at a position couldn't be encoded."""
        self._failures[position] = reason

    def absent(self, positions: Positions) -> Tensor:
        """Which positions hold no embedding: bool [n]."""
        return self.slots(positions) == _ABSENT

    def slots(self, positions: Positions) -> Tensor:
        """Which row of `embeddings` is each position's: int64, negative where there is none."""
        return self.held.slots(positions)

    def __getstate__(self) -> dict[str, Any]:
        """Without the lock."""
        return {"_failures": self._failures.copy(), "held": self.held}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.RLock())


def _with_room(buffer: npt.NDArray[_Kind], used: int, count: int) -> npt.NDArray[_Kind]:
    """The buffer, or a larger one with what is used of it, if it has no room for `count` rows."""
    if count <= len(buffer):
        return buffer
    larger = np.empty((max(count, 2 * len(buffer)), *buffer.shape[1:]), buffer.dtype)
    larger[:used] = buffer[:used]
    return larger
