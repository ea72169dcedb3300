"""Standard output and error that can fail without ending the run.

The output may be a pipe that nobody reads any more, a terminal without Unicode, or closed.
"""

import errno
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO


class _Lasting:
    """A text stream that accepts writes even when nobody reads it any more."""

    def __init__(self, stream: TextIO, name: str):
        self._stream, self._name, self._lost = stream, name, False

    def write(self, text: str) -> int:
        """Write a text; characters that the stream's encoding lacks are escaped."""
        if not self._lost:
            try:
                self._stream.write(self._encodable(text))
            except (OSError, ValueError) as error:
                self._lose(error)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush the stream if that is still possible."""
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
        """Discard all further output, including what is still buffered."""
        self._lost = True
        with suppress(OSError, ValueError):  # the stream may have no file descriptor
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        if self._name == "standard output" and getattr(error, "errno", None) != errno.EPIPE:
            print(f"note: {self._name} can't be written: {error}", file=sys.stderr)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def _occupy_closed() -> None:
    """Open the null device in place of standard streams that are closed.

    Otherwise the next file opened would take their number, and whatever a library prints would end
    up in it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


@contextmanager
def lasting_output() -> Iterator[None]:
    """Replace standard output and error so that no write to them ends the run."""
    _occupy_closed()
    streams = sys.stdout, sys.stderr
    out, err = (stream or open(os.devnull, "w") for stream in streams)  # noqa: SIM115
    sys.stdout, sys.stderr = _Lasting(out, "standard output"), _Lasting(err, "standard error")
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = streams
