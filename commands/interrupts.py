"""Signals that end a run, and the few steps that they must not interrupt.

While a command works, Ctrl-C, SIGTERM and a closed terminal raise an exception, so that cleaning up
happens on the way out. Cleaning up, and moving a finished result into place, run under `shielded`:
a signal that arrives meanwhile is remembered and acted on afterwards.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
INTERRUPTED = 130
"""The exit status of a run that a signal ended."""
IMPATIENT = 1.0
"""Seconds within which further signals count as the same one: a second Ctrl-C, a held key."""

NOTHING_LEFT = "no unfinished result was left behind"


class Interrupted(BaseException):
    """A signal that ends the run.

    KeyboardInterrupt won't do: when it passes through `exec`, as in many imports, CPython kills
    itself with the signal instead of exiting with the given status.
    """


_shields = 0
_came: list[float] = []
"""When signals arrived: an exception raised in a destructor is swallowed, but must not be lost."""


def _on_signal(_number: int, _frame: FrameType | None) -> None:
    now = time.monotonic()
    again = bool(_came) and now - _came[-1] < IMPATIENT
    _came.append(now)
    if not _shields and not again:
        raise Interrupted


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn signals into `Interrupted` while this lasts; ignored signals stay ignored.

    A signal that arrives while the handlers are being set is left to `raise_pending`.
    """
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    _came.clear()
    with shielded():
        for number, handler in handlers.items():
            if handler != signal.SIG_IGN:
                signal.signal(number, _on_signal)
    try:
        yield
    finally:
        with shielded():
            for number, handler in handlers.items():
                signal.signal(number, handler)
        _came.clear()


@contextmanager
def shielded() -> Iterator[None]:
    """Hold signals back until this ends; `raise_pending` then acts on them."""
    global _shields
    _shields += 1
    try:
        yield
    finally:
        _shields -= 1


def arrived() -> bool:
    """Whether a signal has arrived, even if its exception was swallowed."""
    return bool(_came)


def raise_pending() -> None:
    """Raise `Interrupted` if a signal has arrived, even if its exception was swallowed."""
    if arrived():
        raise Interrupted


_answered = False
"""Whether the user was told of an interrupt."""


def answer(left: Sequence[object] = ()) -> None:
    """Say that the run was interrupted, and which unfinished results couldn't be removed."""
    global _answered
    _answered = True
    text = f"left behind: {', '.join(map(str, left))}" if left else NOTHING_LEFT
    print(f"interrupted: {text}", file=sys.stderr)


def end_at_once() -> None:
    """From now on, a signal ends the process at once, with one line; ignored ones stay ignored.

    For the time before and after a command's work, when there is nothing to clean up. An exception
    in the middle of an import, or while the interpreter shuts down, would be swallowed or end in a
    traceback. `interruptible` takes over while the command works.
    """
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _end)


def _end(_number: int, _frame: FrameType | None) -> None:
    if not _answered:
        with suppress(OSError):
            os.write(2, f"interrupted: {NOTHING_LEFT}\n".encode())
    os._exit(INTERRUPTED)
