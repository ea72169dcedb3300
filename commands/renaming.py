"""Renames that never replace what they shouldn't: into an empty place only, or as an exchange.

Linux does both in one step (renameat2). Elsewhere, and on file systems without it, the nearest that
POSIX has is done instead.
"""

import ctypes
import errno
import os
from pathlib import Path

_AT_FDCWD = -100
_NOREPLACE, _EXCHANGE = 1, 2
_UNKNOWN = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)


def rename_into_empty_place(source: Path, target: Path) -> None:
    """Give a directory or file a name that nothing has.

    Raises:
        FileExistsError: something has it.
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
    """Swap the names of two directories in one step; False where the system can't."""
    return _renameat2(one, other, _EXCHANGE)


def _renameat2(source: Path, target: Path, flag: int) -> bool:
    """Whether the system did it; it says what was in its way by an `OSError`."""
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
