"""Standard output and error that a run outlives: nobody reads them, or they can't show a text.

The output may be a pipe that nobody reads any more, a terminal without Unicode, or closed. None of
that ends a run.
"""

import errno
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO


class _Lasting:
    """A text stream that a run can go on writing to when nobody reads it any more."""

    def __init__(self, stream: TextIO, name: str):
        self._stream, self._name, self._lost = stream, name, False

    def write(self, text: str) -> int:
        """Write, with escapes for what the stream's encoding lacks."""
        if not self._lost:
            try:
                self._stream.write(self._encodable(text))
            except (OSError, ValueError) as error:
                self._lose(error)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write one after the other."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush, if it can be."""
        if not self._lost:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._lose(error)

    def _encodable(self, text: str) -> str:
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        try:
            text.encode(encoding)
            return text
        except UnicodeEncodeError:
            return text.encode(encoding, "backslashreplace").decode(encoding)

    def _lose(self, error: Exception) -> None:
        """Let all further output, what is still buffered too, go nowhere."""
        self._lost = True
        with suppress(OSError, ValueError):  # no file of the system's behind it
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        if self._name == "standard output" and getattr(error, "errno", None) != errno.EPIPE:
            print(f"note: {self._name} can't be written: {error}", file=sys.stderr)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def _occupy_closed() -> None:
    """Give standard streams that are closed a file that swallows everything.

    The next file opened would take their number otherwise, and what a library prints would land in
    it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


@contextmanager
def lasting_output() -> Iterator[None]:
    """Make standard output and error such that no write to them ends the run."""
    _occupy_closed()
    streams = sys.stdout, sys.stderr
    out, err = (each or open(os.devnull, "w") for each in streams)  # noqa: SIM115
    sys.stdout, sys.stderr = _Lasting(out, "standard output"), _Lasting(err, "standard error")
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = streams
