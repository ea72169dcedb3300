"""TOML files whose entries are flags."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

from commands.errors import UsageError
from commands.flags import Argument, ConfigOption, flag_of, marks_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_config(path: str | Path, options: type[ConfigOption]) -> list[str]:
    """Turn a TOML file into command-line flags for `options`.

    Raises:
        UsageError: the file is missing, isn't TOML, or has an entry that isn't a flag.
    """
    return flags_of(file_entries(path, options))


def file_entries(path: str | Path, options: type[ConfigOption]) -> dict[str, list[str]]:
    """The values of a TOML file by the option's name; switches that are off are left out."""
    try:
        entries = tomllib.loads(Path(path).read_bytes().decode("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"--config {path}: {error}") from error
    hints = get_type_hints(options, include_extras=True)
    known = {name for name in hints if not any(marks_of(hints[name], Argument))}
    known &= {field.name for field in fields(options)} - {"config"}
    found: dict[str, list[str]] = {}
    for name, value in entries.items():
        option = name.replace("-", "_")
        if option not in known:
            names = ", ".join(sorted(flag.replace("_", "-") for flag in known))
            raise UsageError(f"--config {path}: {name!r} is not one of {names}")
        if option in found:
            raise UsageError(f"--config {path}: {name!r} appears twice")
        if isinstance(value, bool):
            if value:
                found[option] = []
        else:
            found[option] = [str(item) for item in (value if isinstance(value, list) else [value])]
    return found


def flags_of(entries: Mapping[str, Sequence[str]]) -> list[str]:
    """Options with their values as a command line."""
    flags = []
    for name, values in entries.items():
        if len(values) == 1 and values[0].startswith("-"):
            flags.append(f"{flag_of(name)}={values[0]}")
        else:
            flags += [flag_of(name), *values]
    return flags
