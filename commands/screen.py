"""What a command prints: tables as wide as the screen, and names as they are.

A file name may hold brackets, control characters or bytes that are no text. `commands.lasting`
takes care of where the output goes.
"""

import sys

from rich.console import Console

_FILE_WIDTH = 200
"""Characters of a table in a file."""


def printable(text: object) -> str:
    """A text in one line: what isn't printable as Python escapes it."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape", "surrogatepass").decode()
        for each in str(text)
    )


def console() -> Console:
    """Where tables go: as wide as the terminal, or wide enough for a table in a file.

    Everything is shown as it is: brackets and colons in a name are no markup.
    """
    width = None if sys.stdout.isatty() else _FILE_WIDTH
    return _Console(width=width, markup=False, emoji=False, highlight=False)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Go on: rich would end the program."""
