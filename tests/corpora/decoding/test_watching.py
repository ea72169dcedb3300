"""What opening images costs is counted while somebody watches, and the image stays the same."""

import os
import threading
import time

import numpy as np
import pytest
from PIL import Image

from corpora import CorpusError, open_image
from corpora.decoding import files
from corpora.decoding.watching import opening, watched


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), "uint8")
    Image.fromarray(pixels).save(tmp_path / "photo.jpg", quality=95)
    return tmp_path / "photo.jpg"


def test_all_bytes_of_a_file_are_counted_and_the_picture_is_the_same(photo):
    alone = open_image(photo)
    with watched() as seen:
        together = open_image(photo)
    assert np.array_equal(np.asarray(alone), np.asarray(together))
    assert seen.images == 1
    # a decoder may end before the last bytes, of which a buffer holds more
    assert photo.stat().st_size - 4 <= seen.nbytes <= photo.stat().st_size
    assert 0 < seen.reading < seen.seconds


def test_a_prefix_counts_as_what_was_read_of_it(photo):
    with watched() as seen, files.open_regular(photo) as file:
        assert file.read(4) == photo.read_bytes()[:4]
    assert 4 <= seen.nbytes < photo.stat().st_size
    assert (seen.images, seen.seconds) == (0, 0)


def test_what_reading_waits_for_is_no_decoding(tmp_path):
    """A file system that takes its time: a pipe's other end stands for one."""
    reading, writing = os.pipe()
    late = threading.Timer(0.2, lambda: (os.write(writing, b"late"), os.close(writing)))
    with watched() as seen:
        late.start()
        with files.file_of(reading) as stream:
            assert stream.read() == b"late"
    assert seen.reading > 0.15
    assert seen.nbytes == 4


def test_bytes_in_memory_are_read_from_no_file(photo):
    content = photo.read_bytes()
    with watched() as seen:
        open_image(content)
    assert (seen.images, seen.nbytes, seen.reading) == (1, 0, 0)


def test_an_image_that_fails_counts_too(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    with watched() as seen, pytest.raises(CorpusError):
        open_image(tmp_path / "broken.jpg")
    assert seen.images == 1
    assert seen.nbytes > 0


def test_all_threads_count_and_nothing_counts_afterwards(photo):
    with watched() as outer:
        with watched() as inner:
            threads = [threading.Thread(target=open_image, args=(photo,)) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        open_image(photo)
    open_image(photo)
    assert (inner.images, outer.images) == (4, 5)
    assert outer.nbytes > inner.nbytes > 3 * photo.stat().st_size


def test_an_image_that_is_opened_by_way_of_another_counts_once():
    @opening
    def inside():
        time.sleep(0.01)

    @opening
    def outside():
        inside()

    with watched() as seen:
        outside()
    assert seen.images == 1
    assert 0.01 <= seen.seconds < 0.5
