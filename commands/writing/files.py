"""Files written beside others, such as a picture beside its report: all of them or none."""

import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path

from commands.errors import UsageError
from commands.interrupts import raise_pending, shielded
from commands.writing.belongings import add
from commands.writing.locks import locked
from commands.writing.places import check_writable, make_parents, remove_empty
from commands.writing.renaming import rename_into_empty_place
from commands.writing.unfinished import put_in_order


def check_files(directory: Path, names: Iterable[str], overwrite: bool) -> None:
    """Raise `UsageError` if files in a directory can't or must not be written."""
    try:
        put_in_order(directory)
        for name in names:
            path = directory / name
            if os.path.lexists(path) and not overwrite:
                raise UsageError(
                    f"{path} exists already: choose another --output or pass --overwrite"
                )
            if path.is_dir():
                raise UsageError(f"{path} is a directory: choose another --output")
            check_writable(directory, path.resolve())
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot write to {directory}: {reason}") from error


def write_files(directory: Path, contents: Mapping[str, bytes], overwrite: bool) -> list[Path]:
    """Write files into a directory, creating it if needed: all of them, each complete, or none.

    Raises:
        UsageError: a file exists and must not be overwritten, or can't be written.
    """
    try:
        return _write_files(directory, contents, overwrite)
    except OSError as error:
        raise UsageError(f"cannot write to {directory}: {error.strerror}") from error


def _write_files(directory: Path, contents: Mapping[str, bytes], overwrite: bool) -> list[Path]:
    token = secrets.token_hex(6)
    with shielded():
        made = make_parents(directory, directory)
        partial = {name: directory / f".{name}.{token}.partial" for name in contents}
        locks = []
        try:
            for name, content in contents.items():
                partial[name].touch(exist_ok=False)
                locks.append(locked(partial[name]))
                partial[name].write_bytes(content)
            placed: list[Path] = []
            for name, written in partial.items():
                _place_file(written, (directory / name).resolve(), overwrite, placed)
            add(directory, contents)
        finally:
            for written in partial.values():
                written.unlink(missing_ok=True)
            for lock in locks:
                if lock is not None:
                    os.close(lock)
            remove_empty(made)
    raise_pending()
    return [directory / name for name in contents]


def _place_file(written: Path, place: Path, overwrite: bool, placed: list[Path]) -> None:
    """Rename a file to its final path; if another run's is there, remove those already placed."""
    try:
        if overwrite:
            written.replace(place)
        else:
            rename_into_empty_place(written, place)
            placed.append(place)
    except FileExistsError as error:
        for file in placed:
            file.unlink(missing_ok=True)
        raise UsageError(
            f"another run wrote {place} first: choose another --output or pass --overwrite"
        ) from error
