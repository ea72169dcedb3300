"""Photos that a person might have: small pictures in folders and archives."""

import hashlib
import io
import tarfile
from pathlib import Path

import pytest
from PIL import Image


def painted(path: Path, colour=None, size=(24, 20)) -> Path:
    """A picture of one colour, by default of one that no other path has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = colour or tuple(hashlib.sha256(str(path).encode("utf-8", "replace")).digest()[:3])
    Image.new("RGB", size, colour).save(path)
    return path


def packed(path: Path, members: dict[str, bytes], form=tarfile.PAX_FORMAT) -> Path:
    """A tar with these files."""
    with tarfile.open(path, "w", format=form) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def encoded(colour, kind="PNG", size=(24, 20)) -> bytes:
    """The bytes of a picture file."""
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, kind)
    return stream.getvalue()


@pytest.fixture
def paint():
    return painted
