"""The path of a result: whether it can be written, and the directories above it."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from commands.errors import UsageError

_ROOM = 64
"""Characters that paths inside a result need beyond the result's own path."""


def check_writable(path: Path, place: Path) -> None:
    """Raise `UsageError` if a result clearly can't be written to `place`."""
    above = next(parent for parent in place.parents if os.path.lexists(parent))
    if not above.is_dir():
        raise UsageError(f"cannot write to {path}: {above} is not a directory")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write to {path}: no permission to write in {above}")
    missing = place.relative_to(above).parts
    longest = max(len(os.fsencode(name)) for name in missing) + len(f"..{'0' * 12}.partial")
    whole = len(os.fsencode(place)) + _ROOM
    if longest > os.pathconf(above, "PC_NAME_MAX") or whole > os.pathconf(above, "PC_PATH_MAX"):
        raise UsageError(f"cannot write to {path}: the name is too long")


def make_parents(path: Path, parent: Path) -> list[Path]:
    """Make the directories above a result; returns the new ones, the deepest first."""
    missing = [directory for directory in (parent, *parent.parents) if not directory.exists()]
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write to {path}: {error.strerror}") from error
    return missing


def remove_empty(directories: Sequence[Path]) -> None:
    """Remove those of the directories that are empty; pass the deepest first."""
    for directory in directories:
        with suppress(OSError):  # not empty
            directory.rmdir()


def umask() -> int:
    """The permissions that new files of this process don't get."""
    current = os.umask(0o077)
    os.umask(current)
    return current
