"""What a picture is opened from: a path, the bytes of a file, an open file, a row of a corpus.

An error about one of them names it, in one line.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import PIL

from corpora.decoding.files import open_regular
from corpora.problems import CorpusError

Source: TypeAlias = str | Path | bytes | Mapping[str, Any] | BinaryIO
"""A path, the bytes of a file, an open file, or {"path": …, "bytes": …}."""


@contextmanager
def stream_of(source: Source) -> Iterator[BinaryIO]:
    """The open file, at its beginning; one that the caller opened stays open.

    Raises:
        CorpusError: it isn't an ordinary file.
        OSError: it can't be opened.
    """
    held: Any = source
    if isinstance(source, Mapping):
        held = source["path"] if source.get("bytes") is None else source["bytes"]
    if isinstance(held, bytes):
        with BytesIO(held) as stream:
            yield stream
    elif isinstance(held, str | Path):
        with open_regular(held) as file:
            yield file
    else:
        held.seek(0)
        yield held


def content_of(source: Source) -> bytes:
    """The bytes of the file; raises CorpusError if they can't be read."""
    with naming(source), stream_of(source) as stream:
        return stream.read()


def suffix_of(source: object) -> str:
    """That of the file's name, if there is one, in small letters."""
    return os.path.splitext(path_of(source) or "")[1].lower()


def path_of(source: object) -> str | None:
    """The file's name, if there is one."""
    name = source.get("path") if isinstance(source, Mapping) else source
    return str(name) if isinstance(name, str | Path) else None


@contextmanager
def naming(source: object) -> Iterator[None]:
    """Within the context whatever is raised becomes a CorpusError that names the source."""
    name = _name(source)
    try:
        yield
    except CorpusError as error:
        reason = str(error)
        named = reason if reason.startswith(name) else f"{name}: {reason}"
        raise CorpusError(named) from error
    except OSError as error:
        if error.errno is None:
            raise CorpusError(_undecoded(name, error)) from error
        raise CorpusError(f"{name}: can't be opened ({error.strerror})") from error
    # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, MemoryError and more.
    except Exception as error:
        raise CorpusError(_undecoded(name, error)) from error


def _undecoded(name: str, error: Exception) -> str:
    if isinstance(error, PIL.UnidentifiedImageError):  # whose message names an object in memory
        return f"{name}: can't be decoded (it is no picture of a kind that is read here)"
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return f"{name}: can't be decoded ({reason})"


def _name(source: object) -> str:
    if isinstance(source, Mapping):
        source = source.get("path") or source.get("bytes")
    if isinstance(source, bytes):
        return f"{len(source):,} bytes"
    return str(getattr(source, "name", "an open file") if hasattr(source, "read") else source)
