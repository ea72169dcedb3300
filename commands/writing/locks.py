"""Locks that tell whether a run still works on a file or directory."""

import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # a system without these locks: leftovers can't be recognised there
    fcntl = None  # type: ignore[assignment]


def locked(path: Path) -> int | None:
    """Lock a directory or file until the descriptor is closed; None if it is locked or can't be."""
    if fcntl is None:
        return None
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle
