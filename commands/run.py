"""Running a command: from its command line to its exit status.

A command is a frozen dataclass of options and a function that takes them. `run_command` reads the
command line (`commands.parsing`) and turns an error that the user can fix into one line and exit
status 2. A module that is a command calls it right below its options, before its other imports, and
with `main_of` itself: help, and what is wrong with a command line, need none of these and come at
once. Results are written by `commands.writing.outputs`, tables and messages by `commands.screen`.
"""

import importlib
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

from commands.errors import UsageError
from commands.flags import Options
from commands.interrupts import (
    INTERRUPTED,
    Interrupted,
    answer,
    arrived,
    interruptible,
    raise_pending,
    shielded,
)
from commands.lasting import lasting_output
from commands.parsing import parse
from commands.screen import announced, printable
from commands.writing.unfinished import discard_unfinished

_SYSTEM = re.compile(r"(.*) \(os error \d+\)")
"""How libraries written in Rust, such as safetensors, report an error of the system."""


def run_command(
    main: Callable[[Options], None],
    options: type[Options],
    name: str,
    arguments: Sequence[str] | None = None,
    mendable: tuple[type[Exception], ...] = (),
) -> None:
    """Parse the command line into `options` and run `main` on it.

    Exits with status 2 and one line on an error that the user can fix, with 130 on an interrupt.

    Args:
        main: what the command does.
        options: a frozen dataclass with a default for every field.
        name: the command's module, as in `python -m NAME`.
        arguments: the command line, by default this process's.
        mendable: errors of the libraries that the user can fix; their messages are one line.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    with lasting_output(), interruptible():
        try:
            try:
                status = _status(main, options, name, given, mendable)
            finally:
                left = discard_unfinished()
        except Interrupted:  # after the work, or a second one after the first was dealt with
            status, left = INTERRUPTED, discard_unfinished()
        if status == INTERRUPTED:
            with shielded():
                answer(left)
    if status:
        sys.exit(status)


def main_of(name: str) -> Callable[[Any], None]:
    """The `main` of a module that is imported, with all that it needs, only when `main` is called.

    Args:
        name: the command's module, as in `python -m NAME`.
    """

    def main(options: Any) -> None:
        with announced("loading libraries"):  # PyTorch and transformers take seconds
            module = importlib.import_module(name)
        module.main(options)

    return main


def _status(
    main: Callable[[Options], None],
    options: type[Options],
    name: str,
    arguments: list[str],
    mendable: tuple[type[Exception], ...],
) -> int:
    """Run the command, report an error in one line, and return the exit status."""
    one_line: tuple[type[Exception], ...] = (UsageError, *mendable)
    try:
        raise_pending()
        given = parse(options, name, arguments)
        given.check()
        main(given)
    except (Interrupted, KeyboardInterrupt):
        return INTERRUPTED
    except Exception as error:
        if arrived():  # a library that was being imported made another error of the interrupt
            return INTERRUPTED
        return _refuse(_one_line(error, one_line))
    return 0


def _one_line(error: Exception, known: tuple[type[Exception], ...]) -> str:
    """What to say of an error that the user can fix; any other is raised again."""
    if isinstance(error, known):
        return str(error)
    if isinstance(error, OSError) and error.errno is not None:
        return _of_system(error)
    if not isinstance(error, OSError) and (found := _SYSTEM.search(str(error))):
        return f"a file can't be read or written: {found[1]}"
    raise error


def _refuse(reason: str) -> int:
    print(f"error: {printable(' '.join(reason.split()))}", file=sys.stderr)
    return 2


def _of_system(error: OSError) -> str:
    """An error of the system, such as a full disk, and the file that it concerns."""
    if error.filename is None:
        return f"a file can't be read or written: {error.strerror}"
    return f"{printable(error.filename)}: {error.strerror}"
