"""The types of options: bounds, which options exclude each other, which have no effect with others.

Options are frozen dataclasses. A field's annotation holds its bounds, and each class lists which of
its options exclude each other and which have no effect with others. Creating options raises an
error if a value is out of bounds or options exclude each other, in a library too. Command lines are
read by `commands.parsing`.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    TypeAlias,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

import tyro

from commands.errors import UsageError


@dataclass(frozen=True)
class Bounds:
    """The finite numbers from `low` to `high`; an open end is not included."""

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
    """Marks a field that names an input: never written to, and published without its directory."""

    checkpoint: bool = False


class Writes:
    """Marks a field that names an output: published without its directory."""


class Argument:
    """Marks a field that a command line gives by its place, without a flag."""


class Verbatim:
    """Marks a field whose values may hold commas; others are lists that commas part."""


Marked = TypeVar("Marked")
Positional: TypeAlias = Annotated[Marked, tyro.conf.Positional, Argument()]
"""Given by its place: a TOML file can't set it."""
NotSplit: TypeAlias = Annotated[Marked, Verbatim()]
"""Several values, each as it was typed."""
Count = Annotated[int, Bounds(1)]
CountOrAuto: TypeAlias = Count | Literal["auto"]
"""A number, or as many as are needed."""
NumberFromZero = Annotated[int, Bounds(0)]
Seed = Annotated[int, Bounds(0, 2**63 - 1)]
Seconds = Annotated[float, Bounds(0, low_open=True)]
Share = Annotated[float, Bounds(0, 1, low_open=True)]
"""In (0, 1]."""
Checkpoint = Annotated[str, Reads(checkpoint=True)]
"""A directory, a hub name, or `open_clip:` with a name of open_clip's and perhaps a file."""
ReadPath = Annotated[Path, Reads()]
Place = Annotated[str, Reads()]
"""Files, or another source of them; a word that a command knows."""
StagePath = Annotated[Path, Reads(checkpoint=True)]
WrittenPath = Annotated[Path, Writes()]


def by_default(text: str) -> object:
    """Annotates an option whose default is an empty tuple: help shows `text` as its default."""
    return tyro.conf.arg(help_behavior_hint=f"(default: {text})")


@dataclass(frozen=True)
class Unread:
    """Options that have no effect where `when` is true of all options.

    `because` names what takes their effect away, as in `--repair none`.
    """

    options: tuple[str, ...]
    when: Callable[[Any], bool]
    because: str


@dataclass(frozen=True)
class ConfigOption:
    """The flag that every command has.

    A class of options lists in `exclusive` which of them exclude each other, and in `unread` which
    have no effect with others.
    """

    config: ReadPath | None = None
    """TOML file whose entries are flags; a flag on the command line wins"""

    exclusive: ClassVar[tuple[tuple[str, ...], ...]] = ()
    unread: ClassVar[tuple[Unread, ...]] = ()

    def __post_init__(self) -> None:
        """Raise `UsageError` if a value is out of bounds, or options exclude each other."""
        check_bounds(self)
        usual = {field.name: field.default for field in fields(self)}
        changed = [name for name, value in usual.items() if getattr(self, name) != value]
        refuse_exclusive(type(self), changed)

    def check(self) -> None:
        """Raise an error if options don't go together, as far as they alone tell.

        Commands call it before they import what the work takes.
        """


Options = TypeVar("Options", bound=ConfigOption)


def flag_of(name: str) -> str:
    """The flag of an option."""
    return f"--{name.replace('_', '-')}"


def check_bounds(options: ConfigOption) -> None:
    """Raise `UsageError` if the value of an option is out of bounds."""
    for name, hint in get_type_hints(type(options), include_extras=True).items():
        for bounds in marks_of(hint, Bounds):
            value = getattr(options, name)
            for number in value if isinstance(value, tuple) else (value,):
                # a word that stands for a number, as a type may allow, has no bounds
                if number is not None and not isinstance(number, str) and number not in bounds:
                    raise UsageError(f"{flag_of(name)} must be {bounds}, found {number}")


def marks_of(hint: object, kind: type | tuple[type, ...]) -> Iterator[Any]:
    """The annotations of some kind on a type and on the types inside it."""
    if get_origin(hint) is Annotated:
        yield from (mark for mark in get_args(hint)[1:] if isinstance(mark, kind))
    for argument in get_args(hint):
        yield from marks_of(argument, kind)


def refuse_exclusive(options: type[ConfigOption], given: Sequence[str]) -> None:
    """Raise `UsageError` if options that exclude each other are given."""
    for group in options.exclusive:
        if len(both := [name for name in group if name in given]) > 1:
            named = " and ".join(map(flag_of, both))
            raise UsageError(f"{named} exclude each other: pass only one of them")


def unread_of(options: ConfigOption, given: Sequence[str]) -> dict[str, str]:
    """Which of the given options have no effect, and why."""
    return {
        name: unread.because
        for unread in options.unread
        if unread.when(options)
        for name in unread.options
        if name in given
    }
