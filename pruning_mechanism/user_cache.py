"""This user's own cache: what is there may go at any time, and is made anew when it is needed.

Where a machine has no home, or nothing can be written, no file is kept and nothing is said.
"""

import os
import secrets
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def cache_file(name: str) -> Path:
    """Where a file of that name lies in the cache; read anew each time, so that it can be moved.

    Raises:
        RuntimeError: this user has no home.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "clip-cascade" / name


def keep(name: str, write: Callable[[Path], object]) -> None:
    """Put a file into the cache, whole or not at all.

    Args:
        name: of the file.
        write: writes it to a path.
    """
    with suppress(OSError, RuntimeError):
        place = cache_file(name)
        written = _beside(place)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            write(written)
            written.replace(place)
        finally:
            written.unlink(missing_ok=True)


def kept_directory(name: str, write: Callable[[Path], object]) -> Path:
    """A directory in the cache, put there whole or not at all if it isn't there yet.

    Args:
        name: of the directory.
        write: writes what it holds into an empty directory.

    Raises:
        OSError, RuntimeError: the cache can't be written, or there is none.
    """
    place = cache_file(name)
    if place.is_dir():
        return place
    written = _beside(place)
    written.mkdir(parents=True)
    try:
        write(written)
        try:
            written.replace(place)
        except OSError:
            if not place.is_dir():  # else another process was faster
                raise
    finally:
        shutil.rmtree(written, ignore_errors=True)
    return place


def _beside(place: Path) -> Path:
    return place.with_name(f".{place.name}.{secrets.token_hex(4)}")
