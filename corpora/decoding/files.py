"""Opening the files of a corpus: ordinary ones only, whatever their name says.

A pipe called `x.jpg` would hang a run, a device never end; both are told before anything is read.
"""

import hashlib
import os
import stat
from pathlib import Path
from typing import BinaryIO

from corpora.decoding.watching import file_of
from corpora.problems import CorpusError

_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
# Without O_NONBLOCK, opening a pipe waits for somebody who writes into it.
_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_BINARY", 0)
)
_BLOCK = 1 << 20


def kind_of(mode: int) -> str | None:
    """What a file is, by `st_mode`, if it isn't an ordinary one: "a pipe", "a directory"."""
    if stat.S_ISREG(mode):
        return None
    return next((name for matches, name in _KINDS if matches(mode)), "something else")


def open_regular(path: str | Path) -> BinaryIO:
    """Open an ordinary file for reading; raises CorpusError if it is none, OSError as `open`.

    It is looked at before it is opened, as opening alone may do something to a device, and again
    after, as it may have been exchanged in between.
    """
    _refuse_other(path, os.stat(path).st_mode)
    file = os.open(path, _FLAGS)
    try:
        _refuse_other(path, os.fstat(file).st_mode)
        return file_of(file)
    except BaseException:
        os.close(file)
        raise


def digest_of(file: BinaryIO) -> str:
    """BLAKE2b-128 of what is in a file from here to its end, in hexadecimal."""
    digest = hashlib.blake2b(digest_size=16)
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()


def _refuse_other(path: str | Path, mode: int) -> None:
    if kind := kind_of(mode):
        raise CorpusError(f"{path}: is {kind}, not a file; only ordinary files are opened")
