"""Whether a collection's directory still has the stages that a program opened it with.

A migration puts other stages and other tables into it in one step. Who opened it before then goes
on searching what it has read, and can write nothing any more. A plan writes other numbers of the
same stages into its record, which whoever has it open takes over.
"""

import os
from pathlib import Path

from cascade.collecting.record import FILE, Record
from cascade.storing.errors import CollectionError, MigratedError


class Edition:
    """A directory and the generation of its tables when it was opened."""

    def __init__(self, path: Path, generation: int) -> None:
        self._path = path
        self._generation = generation
        self._seen: tuple[int, int] | None = None
        self._superseded = False
        self._newest: Record | None = None

    def changed(self) -> bool:
        """Whether the record was written since `superseded` read it; costs a look at one file."""
        try:
            return not self._superseded and self._stamp() != self._seen
        except OSError:  # whoever reads or writes will say what is wrong
            return False

    def superseded(self) -> bool:
        """Whether there is another generation by now; costs a look at one file."""
        if self._superseded:
            return True
        try:
            seen = self._stamp()
            if seen != self._seen:
                newest = Record.read(self._path)
                self._superseded = newest.generation != self._generation
                self._newest = None if self._superseded else newest
                self._seen = seen
        except (OSError, CollectionError):  # as above
            return False
        return self._superseded

    def _stamp(self) -> tuple[int, int]:
        stat = os.stat(self._path / FILE)
        return stat.st_ino, stat.st_mtime_ns

    def newest(self) -> Record | None:
        """The record as `superseded` found it last; None: of another generation, or unread."""
        return self._newest

    def check(self) -> None:
        """Refuse to write.

        Raises:
            MigratedError: there is another generation by now.
        """
        if self.superseded():
            raise MigratedError(
                f"{self._path} has been migrated to other stages since it was opened: open it "
                "again to add to it"
            )
