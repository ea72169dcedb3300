"""What images are called: `key`, which a person reads, and `uri`, by which a program opens them.

Both are text that any table can hold, and different for different images.

| image | key | uri |
| --- | --- | --- |
| a file | its absolute path | `file:///home/me/a%20b.jpg` |
| a file in a tar | `/data/0.tar#name.jpg` | `file:///data/0.tar?offset=512#name.jpg` |
| a row of a data set | `hub:owner/name#train/17` | the same |

A name that isn't UTF-8 text can't be a key as it is; nor may a file be called like one in a tar. In
these cases the key is the `file://` form too, in which %FF is the byte FF, so that no name is lost
and none stands for another.
"""

import os
from dataclasses import dataclass
from urllib.parse import quote_from_bytes, unquote_to_bytes

_FILE = "file://"
_HUB = "hub:"
_INSIDE = ".tar#"
_OFFSET = "?offset="


@dataclass(frozen=True)
class FileAddress:
    """A file; where it is a tar, perhaps one in it, whose header lies at `offset`."""

    path: str
    member: str | None = None
    offset: int = 0


@dataclass(frozen=True)
class RowAddress:
    """A row of a split of a data set."""

    data_set: str
    split: str
    row: int


def key_of_file(path: str) -> str:
    """What the file of an absolute path is called."""
    return path if _plain(path) else _quoted(path)


def key_of_member(archive: str, member: str) -> str:
    """What a file in a tar is called, given the tar's absolute path."""
    key = f"{archive}#{member}"
    return key if _plain(archive) and _text(member) else f"{_quoted(archive)}#{_percent(member)}"


def uri_of_file(path: str) -> str:
    """Where the file of an absolute path is."""
    return _quoted(path)


def uri_of_member(archive: str, member: str, offset: int) -> str:
    """Where a file in a tar is, given the tar's absolute path and where the file's header lies."""
    return f"{_quoted(archive)}{_OFFSET}{offset}#{_percent(member)}"


def key_of_row(data_set: str, split: str, row: int) -> str:
    """What a row of a data set is called, and where it is."""
    return f"{_HUB}{data_set}#{split}/{row}"


def address_of(uri: str) -> FileAddress | RowAddress:
    """What a uri says.

    Raises:
        ValueError: it is none of these.
    """
    place, _, rest = uri.partition("#")
    if uri.startswith(_HUB):
        split, _, row = rest.rpartition("/")
        return RowAddress(place.removeprefix(_HUB), split, int(row))
    if not uri.startswith(_FILE):
        raise ValueError(f"{uri!r} is no address of an image: file:// or hub: is expected")
    quoted, _, offset = place.removeprefix(_FILE).partition(_OFFSET)
    path = os.fsdecode(unquote_to_bytes(quoted))
    if not offset:
        return FileAddress(path)
    return FileAddress(path, os.fsdecode(unquote_to_bytes(rest)), int(offset))


def _plain(path: str) -> bool:
    """Whether a path can be a key as it is."""
    return _text(path) and _INSIDE not in path.lower()


def _text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _quoted(path: str) -> str:
    return _FILE + _percent(path)


def _percent(name: str) -> str:
    return quote_from_bytes(os.fsencode(name), safe="/")
