"""A JPEG file is held for a decoder elsewhere only if it is whole, and of a kind that is told."""

import io

import pytest
from PIL import Image

from corpora.decoding.jpeg import whole
from corpora.decoding.jpeg.head import head_of
from corpora.decoding.jpeg.whole import end_of, read_jpeg
from corpora.decoding.watching import watched
from tests.corpora.jpegs import LEFT, PLAIN, TAKEN, jpeg, picture, turned

NOT_HELD = {"RGB"}  # ordinary to libjpeg; its layers aren't the usual ones


@pytest.mark.parametrize("kind", TAKEN)
def test_ordinary_files_are_held_to_the_end_of_their_picture(kind):
    content = TAKEN[kind]
    file = read_jpeg(content)
    if kind in NOT_HELD:
        assert file is None
        return
    assert file is not None
    assert content.startswith(file.content)
    assert file.content.endswith(b"\xff\xd9")
    with Image.open(io.BytesIO(content)) as image:
        assert file.frame.size == image.size
        assert len(file.frame.layers) == len(image.getbands())


def test_what_lies_behind_a_picture_is_left_out():
    assert read_jpeg(TAKEN["something behind"]).content == PLAIN
    assert read_jpeg(PLAIN + PLAIN).content == PLAIN


@pytest.mark.parametrize("kind", LEFT)
def test_other_files_are_not_held(kind):
    assert read_jpeg(LEFT[kind]) is None


@pytest.mark.parametrize("progressive", [False, True])
def test_a_file_that_is_cut_anywhere_is_not_held(progressive):
    content = jpeg(picture(), progressive=progressive, restart_marker_blocks=2)
    assert read_jpeg(content) is not None
    assert all(read_jpeg(content[:length]) is None for length in range(len(content)))


def test_a_marker_that_has_no_place_in_a_picture_is_noticed():
    head = head_of(PLAIN)
    middle = (head.scan + len(PLAIN)) // 2
    for marker in (0xC0, 0xDB, 0xE1, 0xDA):
        broken = PLAIN[:middle] + bytes([0xFF, marker]) + PLAIN[middle + 2 :]
        assert read_jpeg(broken) is None
    filled = PLAIN[:-2] + b"\xff\xff" + PLAIN[-2:]  # any number of FF may stand before a marker
    assert end_of(filled, head) == len(filled)


def test_a_file_says_how_it_is_to_be_turned():
    for orientation in range(1, 9):
        assert read_jpeg(jpeg(picture(), exif=turned(orientation))).orientation == orientation
    assert read_jpeg(TAKEN["turned by XMP"]).orientation == 6
    assert read_jpeg(PLAIN).orientation == 1


def test_what_cannot_be_read_is_not_held(tmp_path):
    assert read_jpeg(tmp_path / "absent.jpg") is None
    assert read_jpeg(tmp_path) is None
    (tmp_path / "photo.dng").write_bytes(PLAIN)
    assert read_jpeg(tmp_path / "photo.dng") is None
    (tmp_path / "photo.jpg").write_bytes(PLAIN)
    assert read_jpeg({"path": str(tmp_path / "photo.jpg"), "bytes": None}).content == PLAIN


def test_pictures_of_too_many_pixels_are_not_held(monkeypatch):
    assert read_jpeg(PLAIN) is not None
    monkeypatch.setattr(whole, "MAX_PIXELS", 90 * 61 - 1)
    assert read_jpeg(PLAIN) is None


def test_reading_is_counted_and_no_image_yet(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(PLAIN)
    with watched() as seen:
        read_jpeg(tmp_path / "photo.jpg")
    assert (seen.images, seen.nbytes) == (0, len(PLAIN))
    assert 0 < seen.reading < seen.seconds
