"""What all commands share: flags, configuration files, errors, output directories.

A command is a frozen dataclass of options and a function that takes it. `run_command` reads the
flags with tyro, lets `--config FILE.toml` set their defaults, and turns an error that the user can
mend into one line and exit status 2. `finished_directory` makes results appear whole or not at all.
"""

import logging
import secrets
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar, get_args, get_origin, get_type_hints

import datasets
import torch
import transformers
import tyro
from rich.console import Console

from corpora import CorpusError
from pruning_mechanism import TowerError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MARKERS = (
    "compression.json",
    "report.json",
    "seeds.json",
    "patches.json",
    "equal_time.md",
    "model.safetensors",
)


class UserError(Exception):
    """What the user can mend, in one line that says what is wrong and what to do."""


@dataclass(frozen=True)
class ConfigOption:
    """The flag that every command has."""

    config: Path | None = None
    """TOML file whose entries are flags; a flag on the command line wins"""


Options = TypeVar("Options", bound=ConfigOption)


def run_command(
    main: Callable[[Options], None],
    options: type[Options],
    name: str,
    arguments: Sequence[str] | None = None,
) -> None:
    """Parse the command line into `options` and run `main` on it.

    Exits with status 2 and one line on an error that the user can mend, with 130 on an interrupt.

    Args:
        main: what the command does.
        options: a frozen dataclass with a default for every field.
        name: the module that the user named, as in `python -m NAME`.
        arguments: the command line, by default this process's.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    _quiet_libraries()
    handlers = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    for each, handler in handlers.items():
        if handler != signal.SIG_IGN:
            signal.signal(each, _interrupt)
    try:
        flags = _split_lists([*_config_flags(given, options), *given], options)
        main(
            tyro.cli(
                options,
                prog=f"python -m {name}",
                args=flags,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
        )
    except (UserError, TowerError, CorpusError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except (Interrupted, KeyboardInterrupt):
        print("interrupted: no unfinished result was left behind", file=sys.stderr)
        sys.exit(130)
    finally:
        _interrupts.clear()
        for each, handler in handlers.items():
            signal.signal(each, handler)


class Interrupted(BaseException):
    """SIGINT or SIGTERM.

    A KeyboardInterrupt that passes through `exec`, as in many an import, makes CPython end by the
    signal whatever status it is told to exit with.
    """


_interrupts: list[int] = []
"""Signals that came; an exception raised inside a destructor is swallowed, and must not be lost."""


def _interrupt(number: int, _frame: object) -> None:
    _interrupts.append(number)
    raise Interrupted


def _quiet_libraries() -> None:
    """Leave the screen to this project's own bars and messages."""
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    warnings.showwarning = _show_warning


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    print(f"{category.__name__}: {message}", file=sys.stderr)


def _config_flags(arguments: Sequence[str], options: type) -> list[str]:
    """The flags that the file named by `--config` in `arguments` stands for."""
    path = None
    for index, argument in enumerate(arguments):
        if argument == "--config" and index + 1 < len(arguments):
            path = arguments[index + 1]
        elif argument.startswith("--config="):
            path = argument.partition("=")[2]
    return [] if path is None else read_config(path, options)


def read_config(path: str | Path, options: type) -> list[str]:
    """Turn a TOML file into command-line flags for `options`.

    Raises:
        UserError: the file isn't there, isn't TOML, or has an entry that is no flag.
    """
    try:
        entries = tomllib.loads(Path(path).read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"--config {path}: {error}") from error
    known = {field.name.replace("_", "-") for field in fields(options)}
    flags = []
    for name, value in entries.items():
        flag = name.replace("_", "-")
        if flag not in known:
            raise UserError(f"--config {path}: {name!r} is none of {', '.join(sorted(known))}")
        if isinstance(value, bool):
            flags += [f"--{flag}"] if value else []
        elif isinstance(value, list):
            flags += [f"--{flag}", *map(str, value)]
        else:
            flags += [f"--{flag}", str(value)]
    return flags


def _split_lists(arguments: Sequence[str], options: type) -> list[str]:
    """The command line with `--flag a,b` as `--flag a b`, for flags that take several values."""
    hints = get_type_hints(options)
    several = {
        f"--{name.replace('_', '-')}"
        for name, hint in hints.items()
        if get_origin(hint) is tuple and get_args(hint)[0] is not Path
    }
    split, splitting = [], False
    for argument in arguments:
        if argument.startswith("--"):
            flag, equals, value = argument.partition("=")
            splitting = flag.replace("_", "-") in several
            split += [flag, *value.split(",")] if splitting and equals else [argument]
        else:
            split += [each for each in argument.split(",") if each] if splitting else [argument]
    return split


def check_output(path: Path, overwrite: bool) -> None:
    """Raise `UserError` if `path` is in use and not to be overwritten."""
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists already: name another --output or pass --overwrite")
    if path.exists() and not _is_result(path):
        raise UserError(f"{path} is no earlier result, so it is not overwritten: name another")


@contextmanager
def finished_directory(path: Path, overwrite: bool) -> Iterator[Path]:
    """A directory to write results into, which becomes `path` when the context ends well.

    Enter it before the work starts, so that a path in use is refused in time. If the work fails or
    is interrupted nothing is left, and what stood at `path` before stays.

    Raises:
        UserError: `path` is in use and not to be overwritten, or can't be written.
    """
    check_output(path, overwrite)
    partial = path.parent / f".{path.name}.{secrets.token_hex(4)}.partial"
    try:  # a signal may come as soon as it is there
        _make_private(partial)
        yield partial
        if _interrupts:
            raise Interrupted
        partial.chmod(0o755)
        if path.exists():
            replaced = partial.with_suffix(".replaced")
            path.rename(replaced)
            partial.rename(path)
            shutil.rmtree(replaced)
        else:
            partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _make_private(path: Path) -> None:
    """Make a directory, and those above it, for this user alone until it is finished."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700)
    except OSError as error:
        raise UserError(f"cannot write to {path.parent}: {error.strerror}") from error


def _is_result(path: Path) -> bool:
    if not path.is_dir():
        return False
    return not any(path.iterdir()) or any((path / marker).exists() for marker in MARKERS)


def check_device(name: str) -> None:
    """Raise `UserError` unless torch can compute on the device `name` here."""
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"--device {name} is not to be had here: {reason}") from error


def console() -> Console:
    """Where tables go: as wide as the terminal, or wide enough for a table in a file."""
    return Console() if sys.stdout.isatty() else Console(width=200)
