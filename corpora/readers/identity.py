"""Which rows of a corpus show the same picture: those with the same file or identical bytes.

A row's number or name says nothing: data sets with one row for each caption, or one copy of a file
for each, show a picture many times. To compare bytes only what may be equal is read: rows of the
same length, of files their first and last bytes before the whole.
"""

import hashlib
import os
import stat
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow
import pyarrow.compute

from corpora.decoding.files import digest_of, open_regular
from corpora.problems import CorpusError

_END_BYTES = 2048

_File: TypeAlias = tuple[int | str, ...] | str
"""What identifies a file on this machine: device and inode, or a path where these say nothing."""


def same_files(paths: Iterable[str | os.PathLike[str]]) -> list[Hashable]:
    """For each path what stands for its picture: equal for the same file or identical bytes.

    A file that isn't there, is empty or can't be read stands for itself by its path.
    """
    spelled = [os.path.normpath(os.path.abspath(path)) for path in paths]
    known: dict[str, _File] = {path: path for path in spelled}
    first_path: dict[_File, str] = {}
    by_size: dict[int, list[_File]] = defaultdict(list)
    for path in known:
        if (found := _file(path)) is None:
            continue
        inode, size = found
        known[path] = inode
        if inode not in first_path:
            first_path[inode] = path
            by_size[size].append(inode)
    digests = _equal_among(by_size.values(), first_path, _ends)
    again: dict[Hashable, list[_File]] = defaultdict(list)
    for inode, ends in digests.items():
        again[ends].append(inode)
    digests = _equal_among(again.values(), first_path, digest_of)
    return [digests.get(known[path], known[path]) for path in spelled]


def same_rows(columns: Sequence[pyarrow.ChunkedArray]) -> list[list[Hashable]]:
    """The same for the images of tables: columns of structs of `bytes` and `path`, one a table.

    Rows with embedded bytes are compared by these, others by their file; a row with neither stands
    for itself.
    """
    lengths = [_lengths(column) for column in columns]
    shared = Counter(length for part in lengths for length in part.tolist())
    identities = [
        _embedded(column, part, shared, number)
        for number, (column, part) in enumerate(zip(columns, lengths, strict=True))
    ]
    places, paths = [], []
    for number, column in enumerate(columns):
        for row, path in enumerate(_field(column, "path").to_pylist()):
            if identities[number][row] is None and path is not None:
                places.append((number, row))
                paths.append(path)
    for (number, row), identity in zip(places, same_files(paths), strict=True):
        identities[number][row] = identity
    return [
        [identity or ("row", number, row) for row, identity in enumerate(part)]
        for number, part in enumerate(identities)
    ]


def united(*identities: Sequence[Hashable]) -> list[list[int]]:
    """Rows that are equal in any of these columns, put together: their numbers, in first order."""
    owners = list(range(len(identities[0])))

    def owner(row: int) -> int:
        while owners[row] != row:
            owners[row] = owners[owners[row]]
            row = owners[row]
        return row

    for column in identities:
        first: dict[Hashable, int] = {}
        for row, value in enumerate(column):
            one, other = owner(first.setdefault(value, row)), owner(row)
            owners[max(one, other)] = min(one, other)
    groups: dict[int, list[int]] = defaultdict(list)
    for row in range(len(owners)):
        groups[owner(row)].append(row)
    return list(groups.values())


def _file(path: str) -> tuple[_File, int] | None:
    """What identifies a file on this machine, and its size."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(found.st_mode) or not found.st_size:
        return None
    inode = (found.st_dev, found.st_ino) if found.st_ino else (path,)
    return inode, found.st_size


def _equal_among(
    groups: Iterable[list[_File]],
    paths: Mapping[_File, str],
    digest: Callable[[BinaryIO], Hashable],
) -> dict[_File, Hashable]:
    """The digests of the files that others may be equal to."""
    found: dict[_File, Hashable] = {}
    for group in groups:
        for inode in group if len(group) > 1 else ():
            try:
                with open_regular(paths[inode]) as file:
                    found[inode] = digest(file)
            except (OSError, CorpusError):
                continue
    return found


def _ends(file: BinaryIO) -> Hashable:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    first = file.read(_END_BYTES)
    file.seek(max(0, size - _END_BYTES))
    return size, first, file.read(_END_BYTES)


def _lengths(column: pyarrow.ChunkedArray) -> npt.NDArray[np.integer[Any]]:
    """Bytes embedded in each row, 0 where there are none."""
    found = pyarrow.compute.binary_length(_field(column, "bytes"))
    lengths: npt.NDArray[np.integer[Any]] = pyarrow.compute.fill_null(found, 0).to_numpy()
    return lengths


def _field(column: pyarrow.ChunkedArray, name: str) -> pyarrow.ChunkedArray:
    return pyarrow.compute.struct_field(column, name)


def _embedded(
    column: pyarrow.ChunkedArray,
    lengths: npt.NDArray[np.integer[Any]],
    shared: Counter[int],
    number: int,
) -> list[Hashable | None]:
    """Identities of the rows with embedded bytes; the bytes are never copied out of the table."""
    identities: list[Hashable | None] = []
    for chunk in column.chunks:
        contents = chunk.field("bytes")
        for position in range(len(chunk)):
            row = len(identities)
            length = int(lengths[row])
            if not length:
                identities.append(None)
            elif shared[length] == 1:
                identities.append((number, row))
            else:
                buffer = contents[position].as_buffer()
                identities.append(hashlib.blake2b(buffer, digest_size=16).digest())
    return identities
