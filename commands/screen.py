"""What a command prints: tables as wide as the screen, and names exactly as they are.

A file name may contain brackets, control characters or bytes that aren't text.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

_FILE_WIDTH = 200
"""Width in characters of a table that goes to a file."""


def printable(text: object) -> str:
    """A text as one line, with unprintable characters escaped as in Python."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()
        for char in str(text)
    )


def console(to_error: bool = False) -> Console:
    """The console for tables: as wide as the terminal, or wide enough for a file.

    Text is printed verbatim: brackets and colons in a name are not markup.

    Args:
        to_error: print to standard error, where standard output is for another program to read.
    """
    width = None if (sys.stderr if to_error else sys.stdout).isatty() else _FILE_WIDTH
    return _Console(width=width, markup=False, emoji=False, highlight=False, stderr=to_error)


@contextmanager
def announced(what: str) -> Iterator[None]:
    """Say on the terminal what is being done, for as long as it takes; a file never sees it."""
    if not sys.stderr.isatty():
        yield
        return
    print(f"{what} ...", end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Continue; rich would end the program."""
