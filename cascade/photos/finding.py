"""Finding photos: from the places that a person names to a stream of rows.

Whatever is found is given while it is looked for, in the same order each time; memory grows with
the largest folder, not with their number. A file that can't be a photograph although its name says
so (empty, a pipe, a link that leads nowhere, of a kind whose decoder is missing) is a row with a
reason. Files of other kinds are counted in `ignored`.
"""

import errno
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

from cascade.photos.addresses import (
    key_of_file,
    key_of_member,
    key_of_row,
    uri_of_file,
    uri_of_member,
)
from cascade.photos.archives import SUFFIX, Member, members
from cascade.photos.data_sets import rows_of
from cascade.storing.rows import ImageRow
from corpora import CorpusError
from corpora.readers.patterns import MAGIC, Glob, Patterns
from corpora.readers.walking import (
    Entry,
    ignored_file,
    ignored_name,
    look,
    passed_over,
    photographic,
)

STANDARD_INPUT = "-"
_HUB = "hub:"
_LONGEST_PATH = 1 << 16  # more bytes than any system's paths have


class PhotosError(CorpusError):
    """Photos that can't be looked for; one line: what was found, and what to do."""


class Place(Protocol):
    """Where photos are."""

    def rows(self, patterns: Patterns, ignored: Counter[str]) -> Iterator[ImageRow]:
        """The photos; files of other kinds are counted in `ignored`."""

    def covers(self, key: str) -> bool:
        """Whether an image of this key would have been given, if it were still there."""


@dataclass
class Photos:
    """The photos at some places; each iteration looks for them anew.

    Attributes:
        places: where they are.
        patterns: which of them are meant.
        ignored: how many files of other kinds the last iteration has passed over, by kind.
    """

    places: Sequence[Place]
    patterns: Patterns = field(default_factory=Patterns)
    ignored: Counter[str] = field(default_factory=Counter)

    @classmethod
    def at(
        cls, names: Iterable[str], patterns: Patterns | None = None, listed: BinaryIO | None = None
    ) -> "Photos":
        """Photos at places as a person names them.

        Args:
            names: directories, files, patterns of paths, tar archives, `hub:owner/name` or
                `hub:./DIR`, or - for a list of paths.
            patterns: which files of directories and archives are meant.
            listed: where a list is read from, by default standard input.

        Raises:
            PhotosError: one of the names is none of these.
        """
        return cls([_place(name, listed) for name in names], patterns or Patterns())

    def __iter__(self) -> Iterator[ImageRow]:
        """Rows without digests, some of them perhaps twice if places overlap.

        Raises:
            CorpusError: a data set can't be loaded.
        """
        self.ignored.clear()
        for place in self.places:
            yield from place.rows(self.patterns, self.ignored)

    def covers(self, key: str) -> bool:
        """Whether an image of this key would be found, if it were there and meant."""
        return any(place.covers(key) for place in self.places)


@dataclass(frozen=True)
class Directory:
    """All photos in a directory and those below, or those that a shell's pattern means."""

    path: str
    glob: Glob | None = None

    def rows(self, patterns: Patterns, ignored: Counter[str]) -> Iterator[ImageRow]:
        """The photos, folder by folder."""
        glob = self.glob

        def enter(name: str) -> bool:
            return patterns.enter(name) and (glob is None or glob.enter(name))

        for entry in look(Path(self.path), enter, any_name=True):
            if glob is not None and not glob.take(entry.name):
                continue
            path = os.path.join(self.path, entry.name)
            if glob is not None and _is_archive(path):
                yield from Archive(path).rows(Patterns(), ignored)
            elif not patterns.take(entry.name):
                continue
            elif entry.stat is not None or entry.photograph:
                yield _row_of_entry(path, entry)
            elif entry.ignored is not None:
                ignored[entry.ignored] += 1

    def covers(self, key: str) -> bool:
        """Whether a key lies in the directory."""
        inside = os.path.join(self.path, "")
        return key.startswith((inside, uri_of_file(inside)))


@dataclass(frozen=True)
class File:
    """One file, whatever its name."""

    path: str

    def rows(self, patterns: Patterns, ignored: Counter[str]) -> Iterator[ImageRow]:
        """The file."""
        yield row_of_file(self.path)

    def covers(self, key: str) -> bool:
        """Whether a key is this file's."""
        return key == key_of_file(self.path)


@dataclass(frozen=True)
class Archive:
    """The photos in a tar."""

    path: str

    def rows(self, patterns: Patterns, ignored: Counter[str]) -> Iterator[ImageRow]:
        """The photos, in the archive's order, and what is wrong with it."""
        # its own time, not the members': those are all 0 in many, also when the tar is made anew
        try:
            modified = os.stat(self.path).st_mtime_ns
            for member in members(self.path):
                if not patterns.take(member.name):
                    continue
                name = member.name.rpartition("/")[2]
                reason = ignored_name(name)
                if folder := passed_over(member.name, "."):
                    ignored[folder] += 1
                elif reason is not None and not photographic(name):
                    ignored[reason] += 1
                else:
                    yield self._row(member, modified, reason)
        except (CorpusError, OSError) as error:
            yield _unreadable(self.path, error)

    def _row(self, member: Member, modified: int, reason: str | None) -> ImageRow:
        key = key_of_member(self.path, member.name)
        uri = uri_of_member(self.path, member.name, member.offset)
        if reason is None and member.size:
            return ImageRow(key, uri, member.size, modified)
        return ImageRow(key, uri, reason=reason or "empty file")

    def covers(self, key: str) -> bool:
        """Whether a key is that of a file in it."""
        return key.startswith((f"{key_of_file(self.path)}#", f"{uri_of_file(self.path)}#"))


@dataclass(frozen=True)
class DataSet:
    """The images of a data set of the hub, or of a directory in the hub's layout."""

    name: str

    def rows(self, patterns: Patterns, ignored: Counter[str]) -> Iterator[ImageRow]:
        """The images, split by split."""
        yield from rows_of(self.name)

    def covers(self, key: str) -> bool:
        """Whether a key is that of one of its rows."""
        return key.startswith(key_of_row(self.name, "", 0).partition("#")[0] + "#")


@dataclass(frozen=True)
class Listed:
    """Files that a list names, one a line, or with NUL between them if there is any."""

    stream: BinaryIO | None = None

    def rows(self, patterns: Patterns, ignored: Counter[str]) -> Iterator[ImageRow]:
        """The files, in the list's order."""
        for path in listed_paths(self.stream or sys.stdin.buffer):
            if _is_archive(path):
                yield from Archive(path).rows(patterns, ignored)
            else:
                yield row_of_file(path)

    def covers(self, key: str) -> bool:
        """Never: that a list doesn't name a photo says nothing about it."""
        return False


def listed_paths(stream: BinaryIO) -> Iterator[str]:
    """The absolute paths of a list: separated by NUL if there is one, else by newlines."""
    rest = b""
    while len(rest) < _LONGEST_PATH and b"\0" not in rest:
        if not (more := stream.read(_LONGEST_PATH)):
            break
        rest += more
    separator = b"\0" if b"\0" in rest else b"\n"
    while True:
        *whole, rest = rest.split(separator)
        yield from (os.path.abspath(os.fsdecode(name)) for name in whole if name)
        if not (more := stream.read(_LONGEST_PATH)):
            break
        rest += more
    if rest:
        yield os.path.abspath(os.fsdecode(rest))


def row_of_file(path: str) -> ImageRow:
    """The row of a file by its absolute path, with a reason if it is none that can be read."""
    try:
        found = os.stat(path)
    except OSError as error:
        return _unreadable(path, error)
    reason = ignored_file(found)
    name = os.path.basename(path)
    if reason is None and photographic(name):
        reason = ignored_name(name)  # of a kind whose decoder is missing
    return _row_of_entry(path, Entry(name, reason, True, None if reason else found))


def _row_of_entry(path: str, entry: Entry) -> ImageRow:
    key, uri = key_of_file(path), uri_of_file(path)
    if entry.stat is None or entry.ignored is not None:
        return ImageRow(key, uri, reason=entry.ignored)
    return ImageRow(key, uri, entry.stat.st_size, entry.stat.st_mtime_ns)


def _unreadable(path: str, error: Exception) -> ImageRow:
    reason = str(error).removeprefix(f"{path}: ")
    if isinstance(error, OSError):
        missing = error.errno in (errno.ENOENT, errno.ENOTDIR)
        reason = "file that isn't there" if missing else error.strerror or str(error)
        if (missing and os.path.islink(path)) or error.errno == errno.ELOOP:
            reason = "link that leads nowhere"
    return ImageRow(key_of_file(path), uri_of_file(path), reason=reason)


def _is_archive(path: str) -> bool:
    return path.lower().endswith(SUFFIX) and os.path.isfile(path)


def _place(name: str, listed: BinaryIO | None) -> Place:
    """The place that a name means.

    Raises:
        PhotosError: there is no such place.
    """
    if name == STANDARD_INPUT:
        return Listed(listed)
    if name.startswith(_HUB):
        return DataSet(_data_set(name))
    path = os.path.abspath(os.path.expanduser(name))
    if os.path.isdir(path):
        return Directory(path)
    if _is_archive(path):
        return Archive(path)
    if os.path.lexists(path):
        return File(path)
    if MAGIC.search(name):
        glob = Glob.of(path)
        if os.path.isdir(glob.root):
            return Directory(glob.root, glob)
        raise PhotosError(f"{name}: there is no directory {glob.root}")
    raise PhotosError(
        f"{name}: there is no such file or directory; name directories, files, patterns as "
        "'DIR/*.jpg', tar archives, hub:owner/name, or - for a list on standard input"
    )


def _data_set(name: str) -> str:
    from corpora.loading import source_of

    try:
        return source_of(name, None)
    except CorpusError as error:
        raise PhotosError(str(error)) from error
