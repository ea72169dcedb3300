"""Preparing what comes next while the stage works on what is there.

A stage keeps the cores busy with arithmetic; opening files keeps a disk busy, and decoding another
core. Threads are enough: decoders and tensors let go of the interpreter while they work.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
Prepared = TypeVar("Prepared")


@dataclass(frozen=True)
class Failed:
    """Why one item could not be prepared."""

    error: Exception


@dataclass(frozen=True)
class Ready(Generic[Item, Prepared]):
    """An item, and what was made of it."""

    item: Item
    prepared: Prepared | Failed


def ahead(
    items: Iterable[Item],
    prepare: Callable[[Item], Prepared],
    expected: tuple[type[Exception], ...],
    threads: int = 4,
    waiting: int = 64,
) -> Generator[Ready[Item, Prepared], None, None]:
    """Items in their order, each prepared in one of several threads before it is asked for.

    When this ends, in whatever way, no thread is left; what they were doing is brought to its end,
    the rest is dropped. The items themselves are taken in the thread that asks.

    Args:
        items: taken one by one, at most `waiting` more than were asked for.
        prepare: called in a thread, for several items at once.
        expected: errors that concern one item alone; others end the iteration in its turn.
        threads: how many prepare.
        waiting: items that may be prepared and not yet asked for, so that memory is bounded.
    """

    def outcome(item: Item) -> Prepared | Failed:
        try:
            return prepare(item)
        except expected as error:
            return Failed(error)

    pool = ThreadPoolExecutor(threads, thread_name_prefix="ahead")
    queue: deque[tuple[Item, Future[Prepared | Failed]]] = deque()
    try:
        for item in items:
            queue.append((item, pool.submit(outcome, item)))
            if len(queue) >= waiting:
                first, future = queue.popleft()
                yield Ready(first, future.result())
        while queue:
            first, future = queue.popleft()
            yield Ready(first, future.result())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
