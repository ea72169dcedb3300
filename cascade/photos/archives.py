"""Photos in tar archives, as webdataset writes them: read where they lie, nothing is unpacked."""

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from cascade.photos.addresses import FileAddress
from corpora import CorpusError
from corpora.decoding.files import open_regular

SUFFIX = ".tar"
MAX_BYTES = 512_000_000
"""Of one file in an archive, which is held in memory."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive: its name there, where its header lies, and its bytes."""

    name: str
    offset: int
    size: int


def members(path: str) -> Iterator[Member]:
    """The ordinary files in an archive, in their order, one after the other.

    Raises:
        CorpusError: it is no tar or isn't compressed as it says, or it ends or breaks off in the
            middle, after the files before it were given.
        OSError: it can't be read.
    """
    with open_regular(path) as file:
        length = os.fstat(file.fileno()).st_size
        number = 0
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                while (info := archive.next()) is not None:
                    archive.members.clear()  # type: ignore[attr-defined]  # else it keeps all
                    if info.name and info.isreg() and not info.issparse():
                        if info.offset_data + info.size > length:
                            raise CorpusError(_ends_early(path, number))
                        yield Member(info.name, info.offset, info.size)
                    number += 1
                file.seek(archive.offset)
                if any(file.read(tarfile.BLOCKSIZE)):  # tarfile takes a broken header for the end
                    raise CorpusError(f"{path}: is damaged after {number:,} files")
        except tarfile.TarError as error:
            if number:
                raise CorpusError(_ends_early(path, number)) from error
            raise CorpusError(
                f"{path}: is no tar archive ({error}); a compressed one must be unpacked first, as "
                "by gunzip"
            ) from error


def read_member(address: FileAddress) -> bytes:
    """The bytes of one file in an archive.

    Raises:
        CorpusError: no such file lies there any more, or it is too large.
        OSError: the archive can't be read.
    """
    with open_regular(address.path) as file:
        info = _header(file, address.offset)
        if info is None or info.name != address.member:
            raise CorpusError(
                f"{address.path}: has no {address.member} where it lay; the archive was changed"
            )
        if info.size > MAX_BYTES:
            raise CorpusError(
                f"{address.member}: has {info.size / 1e6:,.0f} MB; at most {MAX_BYTES / 1e6:,.0f} "
                "are read"
            )
        file.seek(info.offset_data)
        content = file.read(info.size)
    if len(content) < info.size:
        raise CorpusError(f"{address.member}: {address.path} ends in the middle of it")
    return content


def lies_there(address: FileAddress) -> bool:
    """Whether an archive has a file of this name at this place.

    Raises:
        OSError: the archive can't be read.
    """
    with open_regular(address.path) as file:
        info = _header(file, address.offset)
    return info is not None and info.name == address.member


def _header(file: BinaryIO, offset: int) -> tarfile.TarInfo | None:
    """The header at a place in an archive, with what belongs to it before and after."""
    file.seek(offset)
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            return archive.next()
    except tarfile.TarError:
        return None


def _ends_early(path: str, number: int) -> str:
    return f"{path}: is cut off after {number:,} files"
