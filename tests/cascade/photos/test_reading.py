"""A photo is read once, ahead of its turn, and what keeps it from being read is said in words."""

import hashlib
import os

import pytest

from cascade.photos import reading
from cascade.photos.finding import Photos, row_of_file
from cascade.photos.reading import digest_at, read, reason_of
from cascade.stages.images import UnreadableImage, open_image
from tests.cascade.photos.conftest import encoded, packed, painted

# -- reading


@pytest.mark.parametrize("held", [1 << 20, 10])
def test_a_file_is_read_with_its_digest_and_its_own_size_and_time(tmp_path, monkeypatch, held):
    monkeypatch.setattr(reading, "HELD", held)
    path = painted(tmp_path / "a.png")
    row = row_of_file(str(path))
    painted(path, size=(50, 40))  # another one since it was found
    found = read(row)
    stat = path.stat()
    assert (found.row.size, found.row.modified) == (stat.st_size, stat.st_mtime_ns)
    assert found.row.digest == hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    assert found.row.digest == digest_at(row)
    assert open_image(found.source).size == (50, 40)


def test_a_file_in_a_tar_is_read_with_its_digest(tmp_path):
    archive = packed(tmp_path / "s.tar", {"a.png": encoded("red")})
    (row,) = Photos.at([str(archive)])
    found = read(row)
    assert found.row.digest == hashlib.blake2b(encoded("red"), digest_size=16).hexdigest()
    assert found.row.digest == digest_at(row)
    assert found.row.modified == archive.stat().st_mtime_ns
    assert open_image(found.source).size == (24, 20)


def test_a_file_that_is_written_to_meanwhile_is_not_taken(tmp_path, monkeypatch):
    path = painted(tmp_path / "a.png")
    row = row_of_file(str(path))

    def slow(file, name, size):
        os.utime(path, ns=(1, 1))
        return "digest", name

    monkeypatch.setattr(reading, "_content", slow)
    with pytest.raises(UnreadableImage, match="written to while it was read"):
        read(row)


def test_what_vanished_or_became_something_else_is_a_reason(tmp_path):
    path = painted(tmp_path / "a.png")
    row = row_of_file(str(path))
    path.unlink()
    assert digest_at(row) is None
    with pytest.raises(UnreadableImage, match=r"^file that isn't there$"):
        read(row)
    path.mkdir()
    with pytest.raises(UnreadableImage, match=r"^is a directory, not a file"):
        read(row)
    path.rmdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(path)
        with pytest.raises(UnreadableImage, match=r"^is a pipe, not a file"):
            read(row)
        assert digest_at(row) is None


def test_a_reason_does_not_repeat_the_name_that_stands_beside_it(tmp_path):
    path = painted(tmp_path / "a.png")
    path.write_bytes(path.read_bytes()[:60])
    row = row_of_file(str(path))
    with pytest.raises(UnreadableImage) as raised:
        open_image(read(row).source)
    assert reason_of(raised.value, row).startswith("can't be decoded (")
