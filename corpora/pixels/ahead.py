"""Preparing what comes next while a stage works on what is there.

A stage keeps the cores busy with arithmetic; opening files keeps a disk busy, and decoding another
core. Threads are enough: decoders and tensors let go of the interpreter while they work.
"""

import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from corpora.pixels.proportions import different_sizes

Item = TypeVar("Item")
Prepared = TypeVar("Prepared")

TOGETHER = 8
"""Images that one thread prepares at a time: handing over takes as long as a tenth of one."""
WAITING = 64
"""Images that may be prepared and not yet asked for."""


def ahead(
    items: Iterable[Item],
    prepare: Callable[[Item], Prepared],
    threads: int = 4,
    waiting: int = WAITING,
    together: int = 1,
) -> Generator[Prepared, None, None]:
    """What is made of items, in their order, each in one of several threads before it is asked for.

    When this ends, in whatever way, no thread is left; what they were doing is brought to its end,
    the rest is dropped. The items themselves are taken in the thread that asks.

    Args:
        items: taken one by one, at most `waiting` more than were asked for. What taking one raises
            ends the iteration when its turn comes too.
        prepare: called in a thread, for several items at once. What it raises ends the iteration
            when its item's turn comes.
        threads: how many prepare.
        waiting: items that may be prepared and not yet asked for, so that memory is bounded.
        together: items that a thread takes at a time, one after the other.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="ahead")
    queue: deque[Future[_Outcomes[Prepared]]] = deque()
    source = iter(items)
    try:
        ending: Exception | None = None
        while ending is None:
            some, ending = _taken(source, together)
            if some:
                queue.append(pool.submit(_Outcomes.of, prepare, some))
            while queue and (ending is not None or len(queue) * together >= waiting):
                yield from queue.popleft().result()
        if not isinstance(ending, StopIteration):
            raise ending
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _taken(source: Iterator[Item], most: int) -> tuple[list[Item], Exception | None]:
    """At most so many of the next items, and what came instead of one more."""
    some: list[Item] = []
    try:
        while len(some) < most:
            some.append(next(source))
    except Exception as error:  # StopIteration at the end
        return some, error
    return some, None


@dataclass(frozen=True)
class _Outcomes(Generic[Prepared]):
    """What was made of some items, up to the first that failed."""

    made: list[Prepared]
    error: BaseException | None

    @classmethod
    def of(
        cls, prepare: Callable[[Item], Prepared], items: Sequence[Item]
    ) -> "_Outcomes[Prepared]":
        made: list[Prepared] = []
        try:
            for item in items:
                made.append(prepare(item))
        except BaseException as error:
            return cls(made, error)
        return cls(made, None)

    def __iter__(self) -> Iterator[Prepared]:
        yield from self.made
        if self.error is not None:
            raise self.error


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Parts of a batch of images [n, 3, height, width] on the CPU, one after the other.

    Raises:
        ValueError: they are of different sizes.
    """
    if len(parts) == 1:
        return parts[0]
    if error := different_sizes(tuple(part.shape[2:]) for part in parts):
        raise error
    # by numpy, which copies in this thread alone: torch's would wait for more, on cores in use
    return torch.from_numpy(np.concatenate([part.numpy() for part in parts]))


def batches_ahead(
    batches: Iterable[Sequence[Item]],
    prepare: Callable[[Sequence[Item]], Prepared],
    join: Callable[[Sequence[Prepared]], Prepared],
    threads: int | None = None,
) -> Generator[Prepared, None, None]:
    """What is made of batches of images, in their order, while those before are worked on.

    A batch is prepared in parts of `TOGETHER` images by several threads, at most `WAITING` images
    before they are asked for, or a part for each thread and two more. An error ends the iteration
    at its batch's turn.

    Args:
        batches: of images; taken in the thread that asks.
        prepare: images → what is made of them, called for several parts at once.
        join: makes one of the parts of a batch, as `joined` does.
        threads: by default as many as torch computes with. One: nothing is done ahead, and all of
            it in the thread that asks, so that who gives torch one core uses one.
    """
    threads = torch.get_num_threads() if threads is None else threads
    if threads == 1:
        yield from map(prepare, batches)
        return
    counts: deque[int] = deque()

    def parts() -> Generator[Sequence[Item], None, None]:
        for batch in batches:
            starts = range(0, max(1, len(batch)), TOGETHER)
            counts.append(len(starts))
            yield from (batch[start : start + TOGETHER] for start in starts)

    waiting = max(WAITING // TOGETHER, threads + 2)  # so that no thread has nothing to do
    with closing(ahead(parts(), prepare, threads, waiting)) as ready:
        for part in ready:
            yield join([part, *itertools.islice(ready, counts.popleft() - 1)])


class InTurn(Generic[Item]):
    """Batches that are prepared ahead from the first that is asked for, and not at all if none is.

    For passes of which only some need pixels, and which ask for them in order.
    """

    def __init__(
        self,
        batches: Sequence[Item],
        images: Callable[[Item], Sequence[Any]],
        prepare: Callable[[Sequence[Any]], Tensor],
    ) -> None:
        """Begin nothing yet.

        Args:
            batches: what names each.
            images: those of a batch; called in the thread that asks.
            prepare: as of `batches_ahead`.
        """
        self._batches, self._images, self._prepare = batches, images, prepare
        self._ready: Generator[Tensor, None, None] | None = None
        self._next = 0
        self._closed = False

    def __call__(self, place: int) -> Tensor:
        """What is made of the batch at a place."""
        if self._closed:
            return self._prepare(self._images(self._batches[place]))
        if self._ready is None or place != self._next:
            self._stop()
            rest = map(self._images, self._batches[place:])
            self._ready = batches_ahead(rest, self._prepare, joined)
        self._next = place + 1
        return next(self._ready)

    def close(self) -> None:
        """Leave no thread; what is asked for later is prepared then."""
        self._closed = True
        self._stop()

    def _stop(self) -> None:
        if self._ready is not None:
            self._ready.close()
            self._ready = None
