"""Locks by which runs tell whether a file or directory is still worked on."""

import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # no such locks on this system: nobody can tell what is left behind
    fcntl = None  # type: ignore[assignment]


def locked(path: Path) -> int | None:
    """A lock on a directory or file that nobody else holds, until it is closed; None if none."""
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
