"""What the last stage encodes in the background, in what order, and how much of it.

Images that queries have promoted come first, then those nearest to them, then the rest: queries
are alike, and so are the images that they bring up.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cascade.collecting.view import View

_NEAR = 256
"""Promoted images that the others are compared with: the newest ones."""
_ORDERED_AT_ONCE = 1000
"""Images that are encoded before the order is made anew: queries promote others meanwhile."""


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


class Refining:
    """One call that lets the last stage encode in the background."""

    def __init__(
        self,
        current: Callable[[], View],
        batch_size: int,
        budget: Budget,
        stop: threading.Event | None,
        progress: Callable[[int], None] | None,
    ) -> None:
        """Begin one.

        Args:
            current: the view of the store, up to date.
            batch_size: images encoded at once.
            budget: how much.
            stop: ends it once it is set.
            progress: told after each batch how many images it encoded.
        """
        self._current = current
        self._batch_size = batch_size
        self._budget = budget
        self._stop = stop
        self._progress = progress
        self._begun = time.monotonic()
        self._done = 0
        self._tried: set[str] = set()

    def run(self) -> int:
        """Encode until all is encoded or tried, the budget used up, or it is stopped.

        Returns:
            Number of images that were encoded.
        """
        while True:
            view = self._current()
            order = self._in_order(view)
            for start in range(0, len(order), self._batch_size):
                left = self._left(view)
                if not left:
                    return self._done
                self._encode(view, order[start : start + min(left, self._batch_size)])
            if not order:
                return self._done

    def _left(self, view: View) -> int:
        """How many images may still be encoded."""
        if self._stop is not None and self._stop.is_set():
            return 0
        cascade, seconds = view.cascade, time.monotonic() - self._begun
        return self._budget.left(self._done, seconds, cascade.encoded[-1], len(cascade))

    def _encode(self, view: View, batch: list[int]) -> None:
        last, catalogue = view.cascade.later[-1], view.cascade.catalogue
        self._tried.update(str(catalogue.contents.keys[at]) for at in batch)
        absent = int(last.store.absent(batch).sum())
        last.encode_absent(batch, catalogue, None)
        encoded = absent - int(last.store.absent(batch).sum())
        self._done += encoded
        if self._progress is not None:
            self._progress(encoded)

    def _in_order(self, view: View) -> list[int]:
        """The next positions for the last stage to encode, of images not tried yet."""
        later, contents = view.cascade.later, view.cascade.catalogue.contents
        every = torch.arange(contents.rows.count)
        absent = every[later[-1].store.absent(every)].tolist()
        untried = [at for at in absent if contents.keys[at] not in self._tried]
        wanted = torch.tensor([at for at in untried if at not in contents.gone], dtype=torch.int64)
        failed = list(later[-1].store.failures)
        held = [at for stage in later for at in stage.store.held.positions.tolist()]
        promoted = [at for at in (*failed, *held) if contents.keys[at] not in self._tried]
        asked = torch.tensor(promoted, dtype=torch.int64)
        order = background_order(contents.rows.embeddings, wanted, asked)
        return order[:_ORDERED_AT_ONCE].tolist()
