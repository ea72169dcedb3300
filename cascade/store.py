"""The embeddings that one stage has made so far, in memory."""

from collections.abc import Sequence

import torch
from torch import Tensor

_ABSENT, _UNREADABLE = -1, -2


class EmbeddingStore:
    """Embeddings float32 [count, d] by position in the collection; grows, never forgets.

    A position is absent, holds an embedding, or is known to be unreadable.
    """

    def __init__(self) -> None:
        self._buffer = torch.zeros(0, 0)
        self._slots = torch.zeros(0, dtype=torch.long)
        self._count = 0

    def __len__(self) -> int:
        """Number of embeddings held."""
        return self._count

    @property
    def embeddings(self) -> Tensor:
        """All embeddings [count, d], in the order in which they were added (a view)."""
        return self._buffer[: self._count]

    def add(self, positions: Sequence[int], embeddings: Tensor) -> None:
        """Keep the embeddings [n, d] of n positions that are absent so far.

        Raises:
            ValueError: numbers differ, a position isn't absent, or the dimension differs from
                that of the embeddings held.
        """
        if embeddings.ndim != 2 or len(embeddings) != len(positions):
            raise ValueError(f"{len(positions)} images got embeddings {tuple(embeddings.shape)}")
        if self._count and embeddings.shape[1] != self._buffer.shape[1]:
            raise ValueError(
                f"embeddings have {embeddings.shape[1]} dimensions, "
                f"those before had {self._buffer.shape[1]}"
            )
        if not self.absent(positions).all():
            raise ValueError("an image was encoded a second time by the same stage")
        self._reserve(self._count + len(positions), embeddings.shape[1])
        self._buffer[self._count : self._count + len(positions)] = embeddings
        self._mark(positions, torch.arange(self._count, self._count + len(positions)))
        self._count += len(positions)

    def add_unreadable(self, position: int) -> None:
        """Remember that the image at a position can't be encoded, so that none tries again."""
        self._mark([position], torch.tensor([_UNREADABLE]))

    def absent(self, positions: Sequence[int] | Tensor) -> Tensor:
        """Which positions were never tried: bool [n]."""
        return self.slots(positions) == _ABSENT

    def slots(self, positions: Sequence[int] | Tensor) -> Tensor:
        """Which row of `embeddings` is each position's: int64, negative where there is none."""
        positions = torch.as_tensor(positions, dtype=torch.long)
        known = (positions >= 0) & (positions < len(self._slots))
        slots = torch.full_like(positions, _ABSENT)
        slots[known] = self._slots[positions[known]]
        return slots

    def _mark(self, positions: Sequence[int], slots: Tensor) -> None:
        if len(positions) == 0:
            return
        beyond = max(positions) + 1 - len(self._slots)
        if beyond > 0:
            room = torch.full((max(beyond, len(self._slots)),), _ABSENT)
            self._slots = torch.cat([self._slots, room])
        self._slots[torch.as_tensor(positions)] = slots

    def _reserve(self, count: int, dimension: int) -> None:
        if count > len(self._buffer):
            grown = torch.zeros(max(count, 2 * len(self._buffer)), dimension)
            grown[: self._count] = self.embeddings.reshape(self._count, dimension)
            self._buffer = grown
