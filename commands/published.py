"""Options as records and reports publish them: without the paths of this machine."""

import shlex
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

from commands.flags import ConfigOption, Reads, Writes, flag_of, marks_of
from commands.parsing import said_of
from commands.places import place_of

_CORPORA = ("corpus", "datasets")
"""The options that name corpora, each of which may be a directory on this machine."""


def published(options: ConfigOption) -> dict[str, str]:
    """Options as text for a record; of a path only the last part."""
    paths = _named_paths(type(options))
    return {
        field.name: _published(field.name, getattr(options, field.name), paths)
        for field in fields(options)
    }


def published_command(name: str, options: ConfigOption) -> str:
    """The command line that options were read from, for a report; of a path only the last part."""
    paths, parts = _named_paths(type(options)), ["python", "-m", name]
    for option, values in said_of(options).line.items():
        parts += [flag_of(option), *(_published(option, value, paths) for value in values)]
    return shlex.join(parts)


def published_name(path: str | Path) -> str:
    """The public name of a checkpoint or file: a hub name unchanged, of a path only the last part.

    A path on one machine is of no use on another, and may be private.
    """
    before, place = place_of(path)
    if before:
        return before + published_name(place)
    here = Path(path).expanduser()
    if here.exists() or isinstance(path, Path) or str(path).startswith((".", "/", "~", "\\")):
        return here.resolve().name
    return path


def published_corpus(name: str) -> str:
    """The public name of a corpus: of a local copy of a hub corpus only the last part."""
    kind, colon, source = name.rpartition(":")
    return f"{kind}{colon}{published_name(source)}" if "/" in source else name


def _named_paths(options: type[ConfigOption]) -> dict[str, type]:
    """The options that name files, with their type: `Path`, or `str` if it may be a hub name."""
    hints = get_type_hints(options, include_extras=True)
    marked = {name: hint for name, hint in hints.items() if any(marks_of(hint, (Reads, Writes)))}
    return {name: Path if "Path" in repr(hint) else str for name, hint in marked.items()}


def _published(name: str, value: object, paths: Mapping[str, type]) -> str:
    if name in paths and value is not None:
        several = value if isinstance(value, tuple) else (value,)
        return ", ".join(published_name(paths[name](path)) for path in several)
    return published_corpus(str(value)) if name in _CORPORA else str(value)
