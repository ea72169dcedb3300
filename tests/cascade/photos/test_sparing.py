"""Of a file as little is read as its picture and its identity take, and no byte of it twice."""

import io
import os
import tracemalloc
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.photos.finding import row_of_file
from cascade.photos.identity import HEAD, LEAST, TAIL, digest_like, is_of_ends
from cascade.photos.reading import HELD, read
from cascade.photos.sparing import Spared, spared
from cascade.stages.images import UnreadableImage


class Counted(io.FileIO):
    """A file that notes which of its bytes were read."""

    def __init__(self, path):
        super().__init__(path)
        self.ranges = []

    def read(self, size=-1):
        start = self.tell()
        content = super().read(size)
        self.ranges.append((start, start + len(content)))
        return content

    @property
    def places(self) -> list[int]:
        return [place for start, end in self.ranges for place in range(start, end)]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "a.jpg"
    path.write_bytes(b"\xff\xd8\xff" + os.urandom(5 * HEAD + 1000))
    return path


@pytest.fixture
def counted(path):
    return Counted(path)


def opened(path, file):
    return Spared(row_of_file(str(path)), str(path), file)


def test_its_ends_are_read_once(path, counted):
    with opened(path, counted) as file:
        assert file.source["bytes"] is file
        row = file.known(by_thumbnail=True)
        assert counted.ranges == [(0, HEAD), (path.stat().st_size - TAIL, path.stat().st_size)]
        assert row == replace(row_of_file(str(path)), digest=digest_like("x-ends", path.open("rb")))
    assert counted.closed


@pytest.mark.parametrize("beyond", [1000, TAIL + 1000])
def test_an_end_that_was_read_for_a_preview_is_not_read_again(tmp_path, beyond):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"\xff\xd8\xff" + os.urandom(5 * HEAD + beyond - 3))
    for place in (4 * HEAD, 5 * HEAD):
        with opened(path, Counted(path)) as file:
            file.seek(place)
            file.read(1)
            row = file.known(by_thumbnail=True)
            assert row.digest == digest_like("x-ends", path.open("rb"))
            places = file._file.places
            assert len(places) == len(set(places))


def test_what_is_needed_as_a_whole_is_read_once_with_its_own_digest(path, counted):
    with opened(path, counted) as file:
        file.seek(2 * HEAD + 5)
        file.read(10)
        assert file.known(by_thumbnail=False) == read(row_of_file(str(path))).row
    assert sorted(counted.places) == list(range(path.stat().st_size))


@given(st.lists(st.tuples(st.integers(-2000, 400_000), st.integers(0, 2), st.integers(-1, 90_000))))
def test_it_reads_as_the_file_itself_does(path, steps):
    with open(path, "rb") as plain, opened(path, open(path, "rb")) as file:
        for offset, whence, size in steps:
            place = max(0, file.seek(offset if whence == 0 else -abs(offset) // 3, whence))
            plain.seek(place)
            assert file.read(size) == plain.read(size)
            assert file.tell() == plain.tell() or plain.tell() > path.stat().st_size


def test_a_file_that_became_small_since_it_was_found_is_known_whole(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"\xff\xd8\xff" + bytes(LEAST))
    row = row_of_file(str(path))
    path.write_bytes(b"\xff\xd8\xff" + bytes(100))
    with spared(row) as file:
        assert file.known(by_thumbnail=True) == read(row).row


def test_what_is_no_jpeg_file_is_read_whole_and_known_whole(tmp_path):
    other = tmp_path / "a.jpg"
    other.write_bytes(b"BM" + bytes(LEAST))
    with opened(other, Counted(other)) as file:
        assert file.source["bytes"] == other.read_bytes()
        assert file.known(by_thumbnail=True) == read(row_of_file(str(other))).row


def test_what_is_read_whole_is_held_once(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(b"II*\0" + bytes(20 * LEAST))
    row = row_of_file(str(path))
    tracemalloc.start()
    try:
        with spared(row) as file:
            content = file.source["bytes"]
            assert tracemalloc.get_traced_memory()[0] < 1.2 * len(content)
            assert file.known(by_thumbnail=False) == read(row).row
    finally:
        tracemalloc.stop()


def test_small_and_huge_files_and_those_in_archives_are_read_whole(path):
    row = row_of_file(str(path))
    for size in (LEAST, HELD + 1, None):
        assert spared(replace(row, size=size)) is None
    assert spared(replace(row, uri=f"file://{path}?offset=0#a.jpg")) is None
    with spared(row) as file:
        assert is_of_ends(file.known(by_thumbnail=True).digest)


def test_a_file_that_is_written_to_meanwhile_is_not_taken(tmp_path):
    path = tmp_path / "a.jpg"
    for by_thumbnail in (True, False):
        path.write_bytes(b"\xff\xd8\xff" + bytes(LEAST))
        with spared(row_of_file(str(path))) as file:
            path.write_bytes(b"\xff\xd8\xff" + bytes(LEAST // 2))
            with pytest.raises(UnreadableImage, match="written to while it was read"):
                file.known(by_thumbnail)
    path.unlink()
    with pytest.raises(UnreadableImage, match=r"^file that isn't there$"):
        spared(replace(row_of_file(str(path)), size=LEAST + 1))


def test_a_block_that_could_not_be_read_is_said_whatever_the_decoder_made_of_it(path):
    class Failing(Counted):
        def read(self, size=-1):
            if self.tell() >= 2 * HEAD:
                raise OSError(5, "Input/output error")
            return super().read(size)

    with opened(path, Failing(path)) as file:
        file.seek(2 * HEAD)
        with pytest.raises(OSError, match="Input/output"):
            file.read(1)
        for by_thumbnail in (True, False):
            with pytest.raises(UnreadableImage, match=r"^Input/output error$"):
                file.known(by_thumbnail)
