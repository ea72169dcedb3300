"""From a command line, and the TOML file that it names, to options.

Nothing is ignored silently: a flag that has no effect because of another is an error. A flag on the
command line overrides the file's entry of the same name, the entries that exclude it, and those
that have no effect with it.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import get_args, get_origin, get_type_hints

import tyro

from commands.config_file import file_entries, flags_of
from commands.errors import UsageError
from commands.flags import (
    ConfigOption,
    Options,
    Verbatim,
    flag_of,
    marks_of,
    refuse_exclusive,
    unread_of,
)
from commands.program import program_name


@dataclass(frozen=True)
class CommandLine:
    """The flags of a command line with their values, by the option's name.

    `given` are the options that the command line or its file sets.
    """

    line: Mapping[str, Sequence[str]]
    given: frozenset[str]


def parse(options: type[Options], name: str, arguments: Sequence[str]) -> Options:
    """Read a command line, and the file that it names, into options.

    Args:
        options: a frozen dataclass with a default for every field.
        name: the command's module, as in `python -m NAME`.
        arguments: the command line.

    Raises:
        UsageError: the file can't be read, a value is out of bounds, or a flag has no effect.
        SystemExit: a flag is unknown or its value has the wrong type, or help was asked for.
    """
    split = _split_lists(arguments, options)
    line = _by_name(split, options)
    file = file_entries(line["config"][-1], options) if line.get("config") else {}
    for entries in (line, file):
        _refuse_empty(entries, options)
        refuse_exclusive(options, list(entries))
    kept = _not_replaced(file, line, options)
    found = _cli(options, name, [*flags_of(kept), *split])
    refused = unread_of(found, list(line))
    if without_effect := unread_of(found, list(kept)):
        # an error only if the file contradicts itself, and not if the command line overrides it
        alone = unread_of(_cli(options, name, flags_of(file)), list(file))
        refused |= {option: why for option, why in alone.items() if option in without_effect}
    for option, why in refused.items():
        raise UsageError(f"{flag_of(option)} has no effect with {why}: leave one of them out")
    object.__setattr__(found, "_said", CommandLine(line, frozenset({*line, *kept})))
    return found


def said_of(options: ConfigOption) -> CommandLine:
    """The command line that options were read from; an empty one if there was none."""
    return getattr(options, "_said", CommandLine({}, frozenset()))


def _cli(options: type[Options], name: str, flags: Sequence[str]) -> Options:
    program = program_name(name)
    return tyro.cli(
        options,
        prog=program,
        description=inspect.cleandoc(options.__doc__ or "").replace(f"python -m {name}", program),
        args=list(flags),
        config=(tyro.conf.FlagCreatePairsOff,),
    )


def _not_replaced(
    file: Mapping[str, list[str]], line: Mapping[str, list[str]], options: type[ConfigOption]
) -> dict[str, list[str]]:
    """The file's entries that the command line doesn't override, by the same flag or another."""
    replaced = set(line)
    for group in options.exclusive:
        if any(name in line for name in group):
            replaced |= set(group)
    return {name: values for name, values in file.items() if name not in replaced}


def _refuse_empty(entries: Mapping[str, list[str]], options: type[ConfigOption]) -> None:
    hints = get_type_hints(options)
    for name, values in entries.items():
        if get_origin(hints[name]) is tuple and not values:
            raise UsageError(f"{flag_of(name)} needs at least one value")


def _by_name(arguments: Sequence[str], options: type[ConfigOption]) -> dict[str, list[str]]:
    """The values of each flag of a command line; if a flag is repeated, the last ones."""
    known = {field.name for field in fields(options)}
    found: dict[str, list[str]] = {}
    current = None
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        name = flag[2:].replace("-", "_")
        if flag.startswith("--"):
            current = [value] if equals else []
            if name in known:
                found[name] = current
        elif current is not None:
            current.append(argument)
    return found


def _split_lists(arguments: Sequence[str], options: type[ConfigOption]) -> list[str]:
    """The command line with `--flag a,b` as `--flag a b`, for flags that take several values."""
    hints = get_type_hints(options)
    marked = get_type_hints(options, include_extras=True)
    several = {
        flag_of(name)
        for name, hint in hints.items()
        if get_origin(hint) is tuple
        and get_args(hint)[0] is not Path
        and not any(marks_of(marked[name], Verbatim))
    }
    split, splitting = [], False
    for argument in arguments:
        if argument.startswith("--"):
            flag, equals, value = argument.partition("=")
            splitting = flag.replace("_", "-") in several
            values = [part for part in value.split(",") if part]
            split += [flag, *values] if splitting and equals else [argument]
        else:
            split += [part for part in argument.split(",") if part] if splitting else [argument]
    return split
