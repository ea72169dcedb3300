"""Watching what opening images costs: seconds of reading and of decoding, and the bytes read.

Every file is opened by `files.open_regular` and every image by `images.open_image`, so whoever
watches these two knows what any stage reads, however it does that. Where nobody watches it costs
nothing.
"""

import functools
import io
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Opened = TypeVar("Opened")


@dataclass
class Opening:
    """What opening images took while it was watched, in all threads of this process.

    Attributes:
        images: how many were opened, or failed to.
        seconds: from their sources to decoded pictures, reading included.
        reading: of these, waiting for bytes of files.
        nbytes: read from files.
    """

    images: int = 0
    seconds: float = 0.0
    reading: float = 0.0
    nbytes: int = 0


_BUFFER = 8192
"""Bytes read at least. Left to itself Python takes the blocks of the file system, and those of a
network drive have a million bytes: more than a head."""
_watched: list[Opening] = []
_adding = threading.Lock()
_within = threading.local()


@contextmanager
def watched() -> Iterator[Opening]:
    """What opening images takes until the context ends; several may watch at once."""
    opening = Opening()
    with _adding:
        _watched.append(opening)
    try:
        yield opening
    finally:
        with _adding:  # by identity: two that have seen the same are equal
            _watched[:] = [other for other in _watched if other is not opening]


def file_of(descriptor: int) -> BinaryIO:
    """An open file's stream, whose reads are counted if somebody watches."""
    if not _watched:
        return os.fdopen(descriptor, "rb", _BUFFER)
    return io.BufferedReader(_Counted(descriptor), _BUFFER)


@contextmanager
def counted(images: int = 0) -> Iterator[None]:
    """Counts the seconds within the context as opening, and so many images opened by it.

    What lies within another such context, in the same thread, counts there alone.
    """
    if not _watched or getattr(_within, "opening", False):
        yield
        return
    _within.opening = True
    begun = time.perf_counter()
    try:
        yield
    finally:
        _add(images=images, seconds=time.perf_counter() - begun)
        _within.opening = False


def count_images(images: int) -> None:
    """Counts so many images as opened, whose seconds `counted` has."""
    _add(images=images)


def is_watched() -> bool:
    """Whether anybody watches: what would take time to be counted right can be left out."""
    return bool(_watched)


def opening(
    open_image: Callable[Arguments, Opened],
) -> Callable[Arguments, Opened]:
    """Makes a function that opens images count what it takes, each image once."""

    @functools.wraps(open_image)
    def timed(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Opened:
        with counted(images=1):
            return open_image(*args, **kwargs)

    return timed


class _Counted(io.FileIO):
    """A file without a buffer, which counts what is read of it."""

    def readinto(self, buffer, /):  # type: ignore[no-untyped-def]
        begun = time.perf_counter()
        number = super().readinto(buffer)
        _add(reading=time.perf_counter() - begun, nbytes=number or 0)
        return number

    def readall(self) -> bytes:
        begun = time.perf_counter()
        content = super().readall()
        _add(reading=time.perf_counter() - begun, nbytes=len(content))
        return content


def _add(images: int = 0, seconds: float = 0.0, reading: float = 0.0, nbytes: int = 0) -> None:
    with _adding:
        for opening in _watched:
            opening.images += images
            opening.seconds += seconds
            opening.reading += reading
            opening.nbytes += nbytes
