"""Preparing what comes next while the stage works on what is there.

A stage keeps the cores busy with arithmetic; opening files keeps a disk busy, and decoding another
core. Threads are enough: decoders and tensors let go of the interpreter while they work.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Prepared = TypeVar("Prepared")


def ahead(
    items: Iterable[Item],
    prepare: Callable[[Item], Prepared],
    threads: int = 4,
    waiting: int = 64,
) -> Generator[Prepared, None, None]:
    """What is made of items, in their order, each in one of several threads before it is asked for.

    When this ends, in whatever way, no thread is left; what they were doing is brought to its end,
    the rest is dropped. The items themselves are taken in the thread that asks.

    Args:
        items: taken one by one, at most `waiting` more than were asked for.
        prepare: called in a thread, for several items at once. What it raises ends the iteration
            when its item's turn comes.
        threads: how many prepare.
        waiting: items that may be prepared and not yet asked for, so that memory is bounded.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="ahead")
    queue: deque[Future[Prepared]] = deque()
    try:
        for item in items:
            queue.append(pool.submit(prepare, item))
            if len(queue) >= waiting:
                yield queue.popleft().result()
        while queue:
            yield queue.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
