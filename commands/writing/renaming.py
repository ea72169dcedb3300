"""Renames that never replace anything by accident: to an unused name, or as an exchange.

Linux does both in one step (renameat2). Other systems and some file systems don't have it; there,
the closest equivalent in POSIX is used.
"""

import ctypes
import errno
import os
from pathlib import Path

_AT_FDCWD = -100
_NOREPLACE, _EXCHANGE = 1, 2
_UNKNOWN = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)


def rename_into_empty_place(source: Path, target: Path) -> None:
    """Rename a directory or file to a name that isn't in use.

    Raises:
        FileExistsError: the name is in use.
    """
    if _renameat2(source, target, _NOREPLACE):
        return
    if source.is_dir():
        target.mkdir()  # of several writers one comes first, and an empty directory is replaced
        source.rename(target)
    else:
        os.link(source, target)
        source.unlink()


def exchange(one: Path, other: Path) -> bool:
    """Swap the names of two directories in one step; False if the system can't do that."""
    return _renameat2(one, other, _EXCHANGE)


def _renameat2(source: Path, target: Path, flag: int) -> bool:
    """Call renameat2; False if the system doesn't have it, an `OSError` if it refused."""
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:
        return False
    names = os.fsencode(source), os.fsencode(target)
    if function(_AT_FDCWD, names[0], _AT_FDCWD, names[1], flag) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNKNOWN:
        return False
    raise OSError(number, os.strerror(number), str(source), None, str(target))
