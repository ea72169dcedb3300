"""One writer at a time, among the threads of this process and all processes of this machine."""

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cascade.storing.errors import CollectionError


class CommitLock:
    """A lock on a file, which the system releases when the process that holds it ends.

    However it ends. The same thread may take it again while it holds it.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._thread = threading.RLock()
        self._depth = 0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold it.

        Raises:
            CollectionError: the file can't be written.
        """
        with self._thread:
            if self._depth:
                yield
                return
            number = self._opened()
            try:
                fcntl.flock(number, fcntl.LOCK_EX)
                self._depth += 1
                yield
            finally:
                self._depth = 0
                os.close(number)

    def _opened(self) -> int:
        try:
            return os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise CollectionError(
                f"{self._file.parent} can't be written ({error.strerror}): it can be searched, "
                "but nothing can be added, removed or refined"
            ) from error
