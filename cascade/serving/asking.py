"""Asking a server of this machine in place of searching in a process of one's own.

A server leaves a Unix socket in the user's own directory for such things, which nobody else may
enter. One line of JSON asks. The first line of the answer comes at once and says whether the server
answers; the second is the answer. A socket that nobody listens at, which a killed server leaves
behind, refuses to be connected to.
"""

import hashlib
import json
import os
import socket
import stat
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cascade.answers import Answer, Terms, Wanted

PROTOCOL = 1
RECORD = "collection.json"
_SECONDS_TO_ACCEPT = 2.0
_LONGEST = 100
"""Bytes of a socket's path; the system takes a few more."""


def socket_of(collection: Path) -> Path | None:
    """Where the server of a collection listens; None: there is no safe place for it."""
    directory = _directory()
    if directory is None:
        return None
    name = hashlib.blake2b(os.fsencode(os.path.realpath(collection)), digest_size=10).hexdigest()
    place = directory / f"{name}.sock"
    return place if len(os.fsencode(place)) <= _LONGEST else None


def identity_of(collection: Path) -> list[int] | None:
    """What tells a collection from one that is made later at the same path, or is migrated there.

    It is the directory's own number, which no other has while a server holds it open, and the
    generation of its tables. Planning changes neither: a server takes over what was planned.
    """
    try:
        found = os.stat(collection)
        generation = json.loads((collection / RECORD).read_bytes()).get("generation", 0)
    except (OSError, ValueError, AttributeError):
        return None
    return [found.st_dev, found.st_ino, generation]


def asked(
    collection: Path, queries: Sequence[Wanted], terms: Terms, device: str
) -> list[Answer] | None:
    """What a server of a collection answers to some queries; None: there is none that does.

    Args:
        collection: its directory.
        queries: at least one.
        terms: how it is searched.
        device: where towers run; a server whose towers run elsewhere doesn't answer.

    Raises:
        ValueError: the query can't be answered, as the message says.
    """
    place = socket_of(collection)
    if place is None or not place.exists():
        return None
    question = {
        "protocol": PROTOCOL,
        "collection": identity_of(collection),
        "device": device,
        "queries": [asdict(query) for query in queries],
        "terms": asdict(terms),
    }
    said = _exchanged(place, json.dumps(question).encode() + b"\n")
    if said is None:
        return None
    if "error" in said:
        raise ValueError(said["error"])
    try:
        return [Answer.of(entries) for entries in said["answers"]]
    except (TypeError, LookupError):  # of another version, that calls things by other names
        return None


def _exchanged(place: Path, line: bytes) -> dict[str, Any] | None:
    """What comes back; None: nobody is there, or doesn't want to, or ended in between."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_SECONDS_TO_ACCEPT)
            connection.connect(os.fspath(place))
            connection.sendall(line)
            with connection.makefile("rb") as answers:
                if not json.loads(answers.readline()).get("accepted"):
                    return None
                connection.settimeout(None)
                found: dict[str, Any] = json.loads(answers.readline())
                return found
    except (OSError, ValueError):
        return None


def _directory() -> Path | None:
    """A directory that is this user's alone; it is made if it isn't there."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.access(runtime, os.W_OK):
        directory = Path(runtime, "clip-cascade")
    elif hasattr(os, "getuid"):
        directory = Path(tempfile.gettempdir(), f"clip-cascade-{os.getuid()}")
    else:
        return None
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        found = os.lstat(directory)
    except OSError:
        return None
    safe = stat.S_ISDIR(found.st_mode) and not stat.S_IMODE(found.st_mode) & 0o077
    return directory if safe and found.st_uid == os.getuid() else None
