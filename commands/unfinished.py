"""Unfinished results: made beside their place, locked, and put in order after a killed run.

A run holds a lock on its unfinished result as long as it lives, so that the next one can tell what
a killed run left behind and may remove it.
"""

import os
import re
import secrets
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from commands.interrupts import shielded
from commands.locks import locked
from commands.renaming import rename_into_empty_place
from commands.screen import printable

_LEFT = re.compile(r"\.(?P<name>.+)\.(?P<token>[0-9a-f]{8}|[0-9a-f]{12})\.(partial|replaced)")
"""Names of unfinished results and of replaced ones; tokens of 8 digits come without a lock."""
_TRIES = 3
"""Times that a lock is tried for, before the file system is taken to have none."""


@dataclass(frozen=True)
class Unfinished:
    """A directory that a result is made in, locked as long as its run lives."""

    directory: Path
    lock: int | None

    @classmethod
    def beside(cls, place: Path) -> "Unfinished":
        """Make one, for this user alone until it is finished."""
        for _ in range(_TRIES):
            directory = place.with_name(f".{place.name}.{secrets.token_hex(6)}.partial")
            directory.mkdir(mode=0o700)
            lock = locked(directory)
            if lock is not None and directory.exists():
                break  # else another run took it for left behind before it was locked
            if lock is not None:
                os.close(lock)
        made = cls(directory, lock)
        _unfinished.append(made)
        return made

    def discard(self) -> bool:
        """Remove what is left of it; whether nothing is."""
        shutil.rmtree(self.directory, ignore_errors=True)
        gone = not os.path.lexists(self.directory)
        if self in _unfinished and gone:
            _unfinished.remove(self)
            if self.lock is not None:
                os.close(self.lock)
        return gone


_unfinished: list[Unfinished] = []
"""Those of this process."""


def discard_unfinished() -> list[Path]:
    """Remove what unfinished results there still are; those that can't be removed."""
    with shielded():
        return [each.directory for each in list(_unfinished) if not each.discard()]


def put_in_order(parent: Path) -> None:
    """Remove what killed runs left in a directory, and put back what they took away.

    A run holds a lock on its unfinished result as long as it lives. What can't be told to be left
    behind, or can't be removed, is named.
    """
    try:
        found = [(path, _LEFT.fullmatch(path.name)) for path in sorted(parent.iterdir())]
    except OSError:  # not there, or not to be read: nothing to put in order
        return
    for path, match in found:
        if match is None or path.is_symlink() or path.stat().st_uid != os.geteuid():
            continue
        lock = locked(path) if len(match["token"]) == 12 else None
        if lock is not None:
            with shielded():
                _settle(path, parent / match["name"])
                os.close(lock)
        elif len(match["token"]) == 8:
            _say(f"{path} was left behind by a run that was cut off: delete it")


def _settle(left: Path, place: Path) -> None:
    """Put a result that was being replaced back if nothing is in its place; else remove it."""
    if left.suffix == ".replaced":
        with suppress(OSError):
            place.rmdir()  # empty: where no system exchanges in one step, a place is claimed so
        with suppress(OSError):
            rename_into_empty_place(left, place)
            _say(f"put {place} back, which a run that was cut off had taken away")
            return
    if left.is_dir():
        shutil.rmtree(left, ignore_errors=True)
    else:
        left.unlink(missing_ok=True)
    gone = "removed" if not os.path.lexists(left) else "can't remove"
    _say(f"{gone} {left}, which a run that was cut off had left behind")


def _say(text: str) -> None:
    print(f"note: {printable(text)}", file=sys.stderr)
