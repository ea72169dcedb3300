"""What is known of a collection's inverted file: how many lists, and what looking into some finds.

One JSON file beside the collection's record. What isn't measured isn't used.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cascade.storing.errors import CollectionError
from cascade.storing.store import FirstEmbeddings

FILE = "lists.json"
FORMAT = 1


@dataclass(frozen=True)
class Depth:
    """What was measured for results down to some rank.

    Attributes:
        results: how many each query wants at most.
        probes: lists that are looked into: the fewest that reach the target.
        recall: by kind of query, the share of the exact results that is found, in [0, 1].
        milliseconds: median of a query.
    """

    results: int
    probes: int
    recall: Mapping[str, float]
    milliseconds: float

    @property
    def least(self) -> float:
        """The smallest recall of any kind of query."""
        return min(self.recall.values())


@dataclass(frozen=True)
class Inverted:
    """An inverted file and what it finds.

    Attributes:
        generation: of the collection's tables that it belongs to.
        lists: how many there are.
        images: that could be found when it was measured.
        made_of: embeddings that there were when the lists were made.
        target: the recall that was to be reached.
        queries: by kind, how many it was measured on.
        depths: by results, ascending.
        seconds: that making the lists took.
    """

    generation: int
    lists: int
    images: int
    made_of: int
    target: float
    queries: Mapping[str, int]
    depths: Sequence[Depth]
    seconds: float

    def depth(self, wanted: int) -> Depth | None:
        """What is used for so many results; None: so many were never measured."""
        return next((depth for depth in self.depths if depth.results >= wanted), None)

    def as_entries(self) -> dict[str, Any]:
        """Itself in what JSON knows."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def of(cls, entries: dict[str, Any]) -> "Inverted":
        """What `as_entries` gave.

        Raises:
            TypeError: the entries are others.
            KeyError: one is missing.
            ValueError: a newer version wrote them.
        """
        if entries.pop("format") != FORMAT:
            raise ValueError("it has another format")
        depths = tuple(Depth(**depth) for depth in entries.pop("depths"))
        return cls(depths=depths, **entries)


EXACTLY = "exactly, in memory"


def searched(found: Inverted | None) -> str:
    """In a few words, how embeddings on disk are searched."""
    if found is None:
        return "exactly, read from disk: no lists are made and measured yet"
    return f"{found.lists:,} lists on disk"


class InvertedFile:
    """Where that is kept: in a collection's directory, or of one in memory in this object."""

    def __init__(self, directory: Path | None, generation: int) -> None:
        self._file = None if directory is None else directory / FILE
        self._generation = generation
        self._seen: tuple[int, int] | None = None
        self._known: Inverted | None = None

    def current(self) -> Inverted | None:
        """What is there now; costs a look at one file. What is damaged isn't there."""
        if self._file is None:
            return self._known
        try:
            stat = os.stat(self._file)
            seen = stat.st_ino, stat.st_mtime_ns
            if seen != self._seen:
                self._known = self._read(self._file)
                self._seen = seen
        except OSError:
            return None
        return self._known

    def in_use(self, source: FirstEmbeddings) -> Inverted | None:
        """What is known of the lists that embeddings have; None: nothing, so all are read."""
        known, lists = self.current(), source.lists()
        if known is None or lists is None or known.lists != lists.number or not known.depths:
            return None
        return known

    def write(self, found: Inverted) -> None:
        """Replace it; it is there as a whole or not at all.

        Raises:
            CollectionError: it can't be written.
        """
        if self._file is None:
            self._known = found
            return
        unfinished = self._file.with_name(f".{FILE}.{os.getpid()}")
        try:
            unfinished.write_text(json.dumps(found.as_entries(), indent=2) + "\n")
            unfinished.replace(self._file)
        except OSError as error:
            raise CollectionError(f"{self._file} can't be written: {error.strerror}") from error

    def _read(self, file: Path) -> Inverted | None:
        try:
            found = Inverted.of(json.loads(file.read_text()))
        except (ValueError, TypeError, KeyError, AttributeError):
            return None
        return found if found.generation == self._generation else None
