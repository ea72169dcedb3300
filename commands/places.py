"""Where a result goes: whether that can be written to, and the directories above it."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from commands.errors import UsageError

_ROOM = 64
"""Characters that names in a result's directory need after its own."""


def check_writable(path: Path, place: Path) -> None:
    """Raise `UsageError` if a result can't be made at `place`, as far as that can be known."""
    above = next(each for each in place.parents if os.path.lexists(each))
    if not above.is_dir():
        raise UsageError(f"cannot write to {path}: {above} is no directory")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write to {path}: {above} may not be written to")
    missing = place.relative_to(above).parts
    longest = max(len(os.fsencode(each)) for each in missing) + len(f"..{'0' * 12}.partial")
    whole = len(os.fsencode(place)) + _ROOM
    if longest > os.pathconf(above, "PC_NAME_MAX") or whole > os.pathconf(above, "PC_PATH_MAX"):
        raise UsageError(f"cannot write to {path}: the name is too long")


def make_parents(path: Path, parent: Path) -> list[Path]:
    """Make the directories above a result; those that weren't there, the lowest first."""
    missing = [each for each in (parent, *parent.parents) if not each.exists()]
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write to {path}: {error.strerror}") from error
    return missing


def remove_empty(directories: Sequence[Path]) -> None:
    """Remove directories that nothing is in, the lowest first."""
    for each in directories:
        with suppress(OSError):  # something is in it
            each.rmdir()


def umask() -> int:
    """The permissions that this process's user withholds from new files."""
    current = os.umask(0o077)
    os.umask(current)
    return current
