"""Command lines: from flags and a TOML file to options that mean what was said.

Options are frozen dataclasses. A field's bounds stand in its annotation, and each class says which
of its options exclude each other and which aren't read beside others, so that nothing that was said
is passed over in silence:

- what is out of bounds, and options that exclude each other, are refused whoever makes the options;
- a flag that isn't read, because of another, is refused;
- a flag on the command line wins over the file's entry of the same name, over its entries that
  exclude it, and over those that aren't read any more because of it.
"""

import math
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, get_args, get_origin, get_type_hints

import tyro

from commands.errors import UsageError
from commands.outputs import Input

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Bounds:
    """The finite numbers from `low` to `high`; without an end of them if that is open."""

    low: float
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return math.isfinite(value) and above and below

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"above {self.low:g}" if self.low_open else f"at least {self.low:g}"
        opening, closing = "(" if self.low_open else "[", ")" if self.high_open else "]"
        return f"in {opening}{self.low:g}, {self.high:g}{closing}"


@dataclass(frozen=True)
class Reads:
    """Marks a field that names what is read: never written to, and published by its name alone."""

    checkpoint: bool = False


class Writes:
    """Marks a field that names what is written: published by its name alone."""


Count = Annotated[int, Bounds(1)]
NumberFromZero = Annotated[int, Bounds(0)]
Seed = Annotated[int, Bounds(0, 2**63 - 1)]
Share = Annotated[float, Bounds(0, 1, low_open=True)]
"""In (0, 1]."""
Checkpoint = Annotated[str, Reads(checkpoint=True)]
"""A directory or a name on the hub."""
ReadPath = Annotated[Path, Reads()]
StagePath = Annotated[Path, Reads(checkpoint=True)]
WrittenPath = Annotated[Path, Writes()]


def by_default(text: str) -> object:
    """Annotates an option whose default, an empty tuple, stands for a value: what help shows."""
    return tyro.conf.arg(help_behavior_hint=f"(default: {text})")


@dataclass(frozen=True)
class Unread:
    """Options that nothing reads when the others are as `when` says.

    `because` names the option, and its value, that they aren't read beside.
    """

    options: tuple[str, ...]
    when: Callable[[Any], bool]
    because: str


@dataclass(frozen=True)
class ConfigOption:
    """The flag that every command has.

    A class of options says in `exclusive` which of them exclude each other, in `unread` which
    aren't read beside others.
    """

    config: ReadPath | None = None
    """TOML file whose entries are flags; a flag on the command line wins"""

    exclusive: ClassVar[tuple[tuple[str, ...], ...]] = ()
    unread: ClassVar[tuple[Unread, ...]] = ()

    def __post_init__(self) -> None:
        """Raise `UsageError` if a value is out of bounds, or options exclude each other."""
        check_bounds(self)
        usual = {each.name: each.default for each in fields(self)}
        changed = [name for name, value in usual.items() if getattr(self, name) != value]
        _refuse_exclusive(type(self), changed)


Options = TypeVar("Options", bound=ConfigOption)


def flag_of(name: str) -> str:
    """The flag of an option of that name."""
    return f"--{name.replace('_', '-')}"


def check_bounds(options: ConfigOption) -> None:
    """Raise `UsageError` if a value of an option is out of its bounds."""
    for name, hint in get_type_hints(type(options), include_extras=True).items():
        for bounds in _marks(hint, Bounds):
            value = getattr(options, name)
            for each in value if isinstance(value, tuple) else (value,):
                if each is not None and each not in bounds:
                    raise UsageError(f"{flag_of(name)} must be {bounds}, found {each}")


def _marks(hint: object, kind: type | tuple[type, ...]) -> Iterator[Any]:
    """What of a kind annotates a type, or a type that it is made of."""
    if get_origin(hint) is Annotated:
        yield from (each for each in get_args(hint)[1:] if isinstance(each, kind))
    for each in get_args(hint):
        yield from _marks(each, kind)


def _refuse_exclusive(options: type[ConfigOption], given: Sequence[str]) -> None:
    for group in options.exclusive:
        if len(both := [name for name in group if name in given]) > 1:
            named = " and ".join(map(flag_of, both))
            raise UsageError(f"{named} exclude each other: name one of them")


def unread_of(options: ConfigOption, given: Sequence[str]) -> dict[str, str]:
    """Which of the options that were given aren't read, and beside what."""
    return {
        name: each.because
        for each in options.unread
        if each.when(options)
        for name in each.options
        if name in given
    }


@dataclass(frozen=True)
class Said:
    """What a command line says: its flags with their values, by the option's name.

    `given` are the options that it or its file names.
    """

    line: Mapping[str, Sequence[str]]
    given: frozenset[str]


def parse(options: type[Options], name: str, arguments: Sequence[str]) -> Options:
    """The options that a command line stands for, and the file that it names.

    Args:
        options: a frozen dataclass with a default for every field.
        name: the module that the user named, as in `python -m NAME`.
        arguments: the command line.

    Raises:
        UsageError: the file is none, values are out of bounds, or something said would not be read.
        SystemExit: a flag is unknown or has no such value, or help was asked for.
    """
    split = _split_lists(arguments, options)
    line = _by_name(split, options)
    path = (line.get("config") or [None])[-1]
    file = _file_entries(path, options) if path else {}
    for entries in (line, file):
        _refuse_empty(entries, options)
        _refuse_exclusive(options, list(entries))
    kept = _not_replaced(file, line, options)
    found = _cli(options, name, [*_flags(kept), *split])
    refused = unread_of(found, list(line))
    if unread := unread_of(found, list(kept)):  # by itself the file may be at fault, or not
        alone = _cli(options, name, _flags(file))
        refused |= {
            each: why for each, why in unread_of(alone, list(file)).items() if each in unread
        }
    for each, why in refused.items():
        raise UsageError(f"{flag_of(each)} is not read beside {why}: leave one of them out")
    object.__setattr__(found, "_said", Said(line, frozenset({*line, *kept})))
    return found


def said_of(options: ConfigOption) -> Said:
    """What the command line said that options were made of; nothing if there was none."""
    return getattr(options, "_said", Said({}, frozenset()))


def _cli(options: type[Options], name: str, flags: Sequence[str]) -> Options:
    return tyro.cli(
        options, prog=f"python -m {name}", args=list(flags), config=(tyro.conf.FlagCreatePairsOff,)
    )


def _not_replaced(
    file: Mapping[str, list[str]], line: Mapping[str, list[str]], options: type
) -> dict[str, list[str]]:
    """The file's entries that the command line doesn't replace, by the same flag or another."""
    replaced = set(line)
    for group in options.exclusive:
        if any(name in line for name in group):
            replaced |= set(group)
    return {name: values for name, values in file.items() if name not in replaced}


def _refuse_empty(entries: Mapping[str, list[str]], options: type) -> None:
    hints = get_type_hints(options)
    for name, values in entries.items():
        if get_origin(hints[name]) is tuple and not values:
            raise UsageError(f"name at least one value of {flag_of(name)}")


def _by_name(arguments: Sequence[str], options: type) -> dict[str, list[str]]:
    """The values of each flag of a command line; of one that is repeated the last ones."""
    known = {each.name for each in fields(options)}
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


def _flags(entries: Mapping[str, Sequence[str]]) -> list[str]:
    """Options with their values as a command line."""
    flags = []
    for name, values in entries.items():
        if len(values) == 1 and values[0].startswith("-"):
            flags.append(f"{flag_of(name)}={values[0]}")
        else:
            flags += [flag_of(name), *values]
    return flags


def read_config(path: str | Path, options: type) -> list[str]:
    """Turn a TOML file into command-line flags for `options`.

    Raises:
        UsageError: the file isn't there, isn't TOML, or has an entry that is no flag.
    """
    return _flags(_file_entries(path, options))


def _file_entries(path: str | Path, options: type) -> dict[str, list[str]]:
    """The values of a TOML file by the option's name; a switch that is off isn't among them."""
    try:
        entries = tomllib.loads(Path(path).read_bytes().decode("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"--config {path}: {error}") from error
    known = {field.name for field in fields(options)} - {"config"}
    found: dict[str, list[str]] = {}
    for name, value in entries.items():
        option = name.replace("-", "_")
        if option not in known:
            names = ", ".join(sorted(each.replace("_", "-") for each in known))
            raise UsageError(f"--config {path}: {name!r} is none of {names}")
        if option in found:
            raise UsageError(f"--config {path}: {name!r} is there twice")
        if isinstance(value, bool):
            if value:
                found[option] = []
        else:
            found[option] = [str(each) for each in (value if isinstance(value, list) else [value])]
    return found


def _split_lists(arguments: Sequence[str], options: type) -> list[str]:
    """The command line with `--flag a,b` as `--flag a b`, for flags that take several values."""
    hints = get_type_hints(options)
    several = {
        flag_of(name)
        for name, hint in hints.items()
        if get_origin(hint) is tuple and get_args(hint)[0] is not Path
    }
    split, splitting = [], False
    for argument in arguments:
        if argument.startswith("--"):
            flag, equals, value = argument.partition("=")
            splitting = flag.replace("_", "-") in several
            values = [each for each in value.split(",") if each]
            split += [flag, *values] if splitting and equals else [argument]
        else:
            split += [each for each in argument.split(",") if each] if splitting else [argument]
    return split


def inputs_of(options: ConfigOption) -> tuple[Input, ...]:
    """What options name that is read, as far as it is on this machine's disk."""
    found = []
    for name, hint in get_type_hints(type(options), include_extras=True).items():
        for mark in _marks(hint, Reads):
            value = getattr(options, name)
            for each in value if isinstance(value, tuple) else (value,):
                if each is not None and Path(each).exists():
                    found.append(Input(flag_of(name), Path(each), mark.checkpoint))
    return tuple(found)


def published(options: ConfigOption) -> dict[str, str]:
    """Options as a record keeps them, in words: of a path its last part alone."""
    paths = _named_paths(type(options))
    return {
        each.name: _published(each.name, getattr(options, each.name), paths)
        for each in fields(options)
    }


def published_command(name: str, options: ConfigOption) -> str:
    """The command line that options were made of, as a report keeps it: no path, only names."""
    paths, parts = _named_paths(type(options)), ["python", "-m", name]
    for option, values in said_of(options).line.items():
        parts += [flag_of(option), *(_published(option, each, paths) for each in values)]
    return shlex.join(parts)


def published_name(path: str | Path) -> str:
    """What a checkpoint or file is called elsewhere: a hub name as it is, of a path the last part.

    Where something lies on one machine helps nobody on another, and may be private.
    """
    here = Path(path).expanduser()
    if here.exists() or isinstance(path, Path) or str(path).startswith((".", "/", "~", "\\")):
        return here.resolve().name
    return path


def published_corpus(name: str) -> str:
    """What a corpus is called elsewhere: of a local copy of a hub's, the name alone."""
    kind, colon, source = name.rpartition(":")
    return f"{kind}{colon}{published_name(source)}" if "/" in source else name


def _named_paths(options: type) -> dict[str, type]:
    """The options that are paths, or may be, and which of the two: `Path` or `str`."""
    hints = get_type_hints(options, include_extras=True)
    marked = {name: hint for name, hint in hints.items() if any(_marks(hint, (Reads, Writes)))}
    return {name: Path if "Path" in repr(hint) else str for name, hint in marked.items()}


def _published(name: str, value: object, paths: Mapping[str, type]) -> str:
    if name in paths and value is not None:
        several = value if isinstance(value, tuple) else (value,)
        return ", ".join(published_name(paths[name](each)) for each in several)
    return published_corpus(str(value)) if name == "corpus" else str(value)
