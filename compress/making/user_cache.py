"""This user's own cache: what is there may go at any time, and is done without where none can be.

Where a machine has no home, or nothing can be written, nothing is kept and nothing is said.
"""

import os
import secrets
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
        written = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            write(written)
            written.replace(place)
        finally:
            written.unlink(missing_ok=True)
