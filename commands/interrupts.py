"""Signals that end a run, and the few steps that none of them may cut in two.

A command answers Ctrl-C, a SIGTERM or a closed terminal by an exception, so that everything on the
way out is put in order. What puts in order, and what sets a finished result in its place, runs
under `shielded`: a signal that comes meanwhile is remembered and acted on afterwards.
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
"""Seconds within which further signals are taken for the same one: a second Ctrl-C, a held key."""

NOTHING_LEFT = "no unfinished result was left behind"


class Interrupted(BaseException):
    """A signal that ends the run.

    A KeyboardInterrupt that passes through `exec`, as in many an import, makes CPython end by the
    signal whatever status it is told to exit with.
    """


_shields = 0
_came: list[float] = []
"""When signals came; an exception raised inside a destructor is swallowed, and must not be lost."""


def _on_signal(_number: int, _frame: FrameType | None) -> None:
    now = time.monotonic()
    again = bool(_came) and now - _came[-1] < IMPATIENT
    _came.append(now)
    if not _shields and not again:
        raise Interrupted


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn signals into `Interrupted` as long as this lasts; those that are ignored stay so.

    One that comes while the handlers are set is left to `raise_pending`.
    """
    handlers = {each: signal.getsignal(each) for each in SIGNALS}
    _came.clear()
    with shielded():
        for each, handler in handlers.items():
            if handler != signal.SIG_IGN:
                signal.signal(each, _on_signal)
    try:
        yield
    finally:
        with shielded():
            for each, handler in handlers.items():
                signal.signal(each, handler)
        _came.clear()


@contextmanager
def shielded() -> Iterator[None]:
    """Put signals off until this ends; `raise_pending` acts on them."""
    global _shields
    _shields += 1
    try:
        yield
    finally:
        _shields -= 1


def raise_pending() -> None:
    """Raise `Interrupted` if a signal came, even one whose exception was swallowed."""
    if _came:
        raise Interrupted


_answered = False
"""Whether a signal was answered on the screen."""


def answer(left: Sequence[object] = ()) -> None:
    """Say that the run was interrupted, and which unfinished results couldn't be removed."""
    global _answered
    _answered = True
    says = f"left behind: {', '.join(map(str, left))}" if left else NOTHING_LEFT
    print(f"interrupted: {says}", file=sys.stderr)


def end_at_once() -> None:
    """From now on, end the process as soon as a signal comes, with one line; ignored ones stay so.

    For the time before a command's work and after it, when there is nothing to put in order: an
    exception in the middle of an import, or of the interpreter's end, would be lost or printed.
    `interruptible` replaces this while the work lasts.
    """
    for each in SIGNALS:
        if signal.getsignal(each) != signal.SIG_IGN:
            signal.signal(each, _end)


def _end(_number: int, _frame: FrameType | None) -> None:
    if not _answered:
        with suppress(OSError):
            os.write(2, f"interrupted: {NOTHING_LEFT}\n".encode())
    os._exit(INTERRUPTED)
