"""Unfinished results: made beside their final path, locked, and cleaned up after a killed run.

A run holds a lock on its unfinished result while it lives. What nobody holds a lock on was left
behind by a run that was killed, and the next run removes it.
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
from commands.screen import printable
from commands.writing.locks import locked
from commands.writing.renaming import rename_into_empty_place

_LEFT = re.compile(r"\.(?P<name>.+)\.(?P<token>[0-9a-f]{8}|[0-9a-f]{12})\.(partial|replaced)")
"""Names of unfinished and replaced results; those with 8 digits are old and were never locked."""
_TRIES = 3
"""How often to try for a lock before concluding that the file system has none."""


@dataclass(frozen=True)
class Unfinished:
    """A directory in which a result is made; locked while its run lives."""

    directory: Path
    lock: int | None

    @classmethod
    def beside(cls, place: Path) -> "Unfinished":
        """Make one that only this user can read until it is finished."""
        for _ in range(_TRIES):
            directory = place.with_name(f".{place.name}.{secrets.token_hex(6)}.partial")
            directory.mkdir(mode=0o700)
            lock = locked(directory)
            if lock is not None and directory.exists():
                break  # otherwise another run removed it as left behind before it was locked
            if lock is not None:
                os.close(lock)
        made = cls(directory, lock)
        _unfinished.append(made)
        return made

    def discard(self) -> bool:
        """Remove the directory if it is still there; whether it is gone."""
        shutil.rmtree(self.directory, ignore_errors=True)
        gone = not os.path.lexists(self.directory)
        if self in _unfinished and gone:
            _unfinished.remove(self)
            if self.lock is not None:
                os.close(self.lock)
        return gone


_unfinished: list[Unfinished] = []
"""The unfinished results of this process."""


def discard_unfinished() -> list[Path]:
    """Remove the unfinished results of this process; those that couldn't be removed."""
    with shielded():
        return [result.directory for result in list(_unfinished) if not result.discard()]


def put_in_order(parent: Path) -> None:
    """Clean up after killed runs in a directory: remove unfinished results, restore replaced ones.

    Prints what it did, what it couldn't remove, and what it can't tell to be left behind.
    """
    try:
        found = [(path, _LEFT.fullmatch(path.name)) for path in sorted(parent.iterdir())]
    except OSError:  # missing or unreadable: nothing to clean up
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
            _say(f"{path} was left behind by a run that was killed: delete it")


def _settle(left: Path, place: Path) -> None:
    """Restore a result that was being replaced if nothing has taken its place, else remove it."""
    if left.suffix == ".replaced":
        with suppress(OSError):
            place.rmdir()  # an empty directory only reserves the name (see `renaming`)
        with suppress(OSError):
            rename_into_empty_place(left, place)
            _say(f"put {place} back, which a killed run had moved away")
            return
    if left.is_dir():
        shutil.rmtree(left, ignore_errors=True)
    else:
        left.unlink(missing_ok=True)
    done = "removed" if not os.path.lexists(left) else "can't remove"
    _say(f"{done} {left}, left behind by a killed run")


def _say(text: str) -> None:
    print(f"note: {printable(text)}", file=sys.stderr)
