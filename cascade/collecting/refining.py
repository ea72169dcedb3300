"""What the last stage encodes in the background, and how much of it."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from cascade.collecting.ordering import BackgroundOrder
from cascade.collecting.view import View

_ORDERED_AT_ONCE = 1000
"""Images that are encoded before one looks again: queries promote others meanwhile."""


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
        self._tried = [np.empty(0, np.int64)]  # ids: positions are of one view

    def run(self) -> int:
        """Encode until all is encoded or tried, the budget used up, or it is stopped.

        Returns:
            Number of images that were encoded.
        """
        view = self._current()
        ordering = self._ordering(view)
        while True:
            order = ordering.next(_ORDERED_AT_ONCE)
            for start in range(0, len(order), self._batch_size):
                left = self._left(view)
                if not left:
                    return self._done
                batch = order[start : start + min(left, self._batch_size)]
                ordering.leave_out(batch)
                self._tried.append(view.ids(batch))
                self._encode(view, batch.tolist())
            if not len(order):
                return self._done
            before, view = view, self._current()
            if view is not before:
                ordering = self._ordering(view)

    def _ordering(self, view: View) -> BackgroundOrder:
        """The order of a view's images, without those that were tried."""
        tried = view.positions(np.concatenate(self._tried))
        return BackgroundOrder(view.cascade, torch.from_numpy(tried[tried >= 0]))

    def _left(self, view: View) -> int:
        """How many images may still be encoded."""
        if self._stop is not None and self._stop.is_set():
            return 0
        cascade, seconds = view.cascade, time.monotonic() - self._begun
        return self._budget.left(self._done, seconds, cascade.encoded[-1], len(cascade))

    def _encode(self, view: View, batch: list[int]) -> None:
        last, catalogue = view.cascade.later[-1], view.cascade.catalogue
        absent = int(last.store.absent(batch).sum())
        last.encode_absent(batch, catalogue, None)
        encoded = absent - int(last.store.absent(batch).sum())
        self._done += encoded
        if self._progress is not None:
            self._progress(encoded)
