"""What the last stage encodes in the background, in what order, and how much of it.

Images that queries have promoted come first, then those nearest to them, then the rest: queries
are alike, and so are the images that they bring up.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

_NEAR = 256
"""Promoted images that the others are compared with: the newest ones."""


@dataclass(frozen=True)
class Budget:
    """How much the last stage encodes, until the first of these is used up; None: no limit.

    Attributes:
        images: how many images.
        seconds: how long, checked after each batch.
        share: of the collection that the last stage has encoded in the end, from 0 to 1.
    """

    images: int | None = None
    seconds: float | None = None
    share: float | None = None

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        if self.images is not None and self.images < 0:
            raise ValueError(f"a budget of images is at least 0, got {self.images}")
        if self.seconds is not None and not self.seconds >= 0:
            raise ValueError(f"a budget of seconds is at least 0, got {self.seconds}")
        if self.share is not None and not 0 <= self.share <= 1:
            raise ValueError(f"a share is from 0 to 1, got {self.share}")

    def left(self, done: int, seconds: float, encoded: int, images: int) -> int:
        """How many images may still be encoded.

        Args:
            done: images encoded under this budget.
            seconds: since it began.
            encoded: images that the last stage has encoded in all.
            images: of the collection.
        """
        if self.seconds is not None and seconds >= self.seconds:
            return 0
        left = images
        if self.images is not None:
            left = min(left, self.images - done)
        if self.share is not None:
            left = min(left, int(self.share * images + 1e-9) - encoded)
        return max(0, left)


def background_order(embeddings: Tensor, absent: Tensor, promoted: Tensor) -> Tensor:
    """Positions in the order in which the last stage encodes them.

    Args:
        embeddings: the first stage's, float32 [n, d].
        absent: int64 [a], positions that the last stage has not encoded, in order.
        promoted: int64 [p], positions that any later stage has encoded or was asked for, the
            newest last.
    """
    waiting = torch.isin(absent, promoted)
    first, others = absent[waiting], absent[~waiting]
    near = promoted[-_NEAR:]
    if not len(near) or not len(others):
        return torch.cat([first, others])
    targets = embeddings[near].T
    nearest = [(embeddings[some] @ targets).amax(dim=1) for some in others.split(1 << 16)]
    order = torch.cat(nearest).argsort(descending=True, stable=True)
    return torch.cat([first, others[order]])
