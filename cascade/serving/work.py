"""What a server does at once: so many requests, each on a thread, none for longer than it may.

A thread can't be ended from outside. A request that is given up leaves its thread to come to an
end, and its slot is free only then, so there are never more threads than slots.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

Result = TypeVar("Result")


class RefusedError(Exception):
    """A request that isn't answered: the status, a line that says why, and headers."""

    def __init__(self, status: int, reason: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = headers or {}


def busy(reason: str) -> RefusedError:
    """A refusal for now."""
    return RefusedError(503, reason, {"Retry-After": "1"})


class Slots:
    """A number of slots; one is free again when nobody holds it any more."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._taken = 0
        self._change = threading.Condition()

    @property
    def taken(self) -> int:
        """How many are taken."""
        return self._taken

    @contextmanager
    def one(self) -> Iterator[None]:
        """Hold one, and let `run` hold it longer.

        Raises:
            RefusedError: none is free.
        """
        with self._change:
            if self._taken >= self.number:
                raise busy(f"{self.number} requests are being answered: ask again in a second")
            self._taken += 1
        slot = _Slot(self)
        mark = _SLOT.set(slot)
        try:
            yield
        finally:
            _SLOT.reset(mark)
            slot.let_go()

    def free_one(self) -> None:
        """Take one back."""
        with self._change:
            self._taken -= 1
            self._change.notify_all()

    def wait_until_free(self, seconds: float) -> bool:
        """Wait until nobody holds any; False: somebody still does."""
        with self._change:
            return self._change.wait_for(lambda: not self._taken, seconds)


class _Slot:
    """A slot that a request holds, and perhaps a thread besides."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._holders = 1
        self._lock = threading.Lock()

    def hold(self) -> None:
        """Hold it once more."""
        with self._lock:
            self._holders += 1

    def let_go(self) -> None:
        """Hold it once less."""
        with self._lock:
            self._holders -= 1
            if self._holders:
                return
        self._slots.free_one()


_SLOT: ContextVar[_Slot] = ContextVar("slot")


async def run(seconds: float | None, work: Callable[[], Result]) -> Result:
    """What a function returns that runs on a thread, inside of `Slots.one`.

    Args:
        seconds: until it is given up; None: never.
        work: the function.

    Raises:
        RefusedError: it takes too long; it goes on, and its slot stays taken.
    """
    slot, loop = _SLOT.get(), asyncio.get_running_loop()
    done: asyncio.Future[Result] = loop.create_future()

    def tell(outcome: Callable[[], None]) -> None:
        try:
            loop.call_soon_threadsafe(lambda: None if done.done() else outcome())
        except RuntimeError:  # the server has ended
            return

    def working() -> None:
        try:
            result = work()
        except BaseException as error:
            failure = error
            tell(lambda: done.set_exception(failure))
        else:
            tell(lambda: done.set_result(result))
        finally:
            slot.let_go()

    slot.hold()
    try:
        threading.Thread(target=working, name="request", daemon=True).start()
    except RuntimeError as error:  # the system has no more threads
        slot.let_go()
        raise busy("there are too many threads: ask again in a second") from error
    try:
        return await asyncio.wait_for(done, seconds)
    except asyncio.TimeoutError as error:
        raise busy(
            f"this takes longer than {seconds:g} s; what was encoded is kept, so ask again"
        ) from error
