"""Which images a first stage has been calibrated on: their keys, beside the checkpoint.

JSON lines, a string each, because a key is a file's name, and that may hold anything: line breaks
of every kind, and bytes that are no text (which Python has as lone surrogates). Written by every
rule, read wherever a stage must not be measured on its own calibration images.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from compress.errors import UserError

FILE = "calibration.jsonl"
OLD_FILE = "calibration.txt"
"""How results were written before: a key a line, as it is."""


def write_keys(directory: Path, keys: Iterable[str]) -> None:
    """Write the keys of the calibration images, each once, in their order."""
    lines = "".join(f"{json.dumps(key)}\n" for key in dict.fromkeys(keys))
    (directory / FILE).write_bytes(lines.encode("ascii"))


def read_keys(directory: str | Path) -> list[str]:
    """The keys that were written; empty if the directory says nothing.

    Raises:
        UserError: the file is there and is something else.
    """
    path, old = Path(directory) / FILE, Path(directory) / OLD_FILE
    if path.is_file():
        return [_key(line, path) for line in path.read_bytes().split(b"\n") if line]
    if old.is_file():
        text = old.read_bytes().decode("utf-8", "surrogateescape")
        return [line for line in text.split("\n") if line]
    return []


def _key(line: bytes, path: Path) -> str:
    try:
        key = json.loads(line)
    except ValueError:
        key = None
    if not isinstance(key, str):
        raise UserError(f"{path} doesn't name calibration images: {line[:40]!r} is no JSON string")
    return key
