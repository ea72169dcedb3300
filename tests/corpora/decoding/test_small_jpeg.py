"""A small JPEG file comes out the same whether a decoder is called alone or Pillow opens it."""

import io
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpora import CorpusError, open_image
from corpora.decoding.jpeg import decoders, small
from corpora.decoding.jpeg.decoders import decoder
from corpora.decoding.jpeg.head import head_of
from corpora.decoding.jpeg.small import small_jpeg
from corpora.decoding.reads import Tally
from corpora.decoding.simulating import with_thumbnail
from tests.corpora.jpegs import LEFT, PLAIN, TAKEN, jpeg, picture, turned, with_segment
from tests.lanes import examples

pytest.importorskip("simplejpeg")


def outcome(content: bytes, at_least: int | None, reads: str):
    tally = Tally()
    try:
        opened = open_image(content, at_least, reads, tally)
    except CorpusError as error:
        return str(error), tally.counts
    return opened.mode, opened.size, opened.tobytes(), tally.counts


def both(content: bytes, at_least: int | None, reads: str):
    """What comes out with the decoder, and what comes out without."""
    with_it = outcome(content, at_least, reads)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(small, "decoder", lambda: None)
        return with_it, outcome(content, at_least, reads)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("at_least", [None, 1, 5, 16, 60])
@pytest.mark.parametrize("kind", [*TAKEN, *LEFT])
def test_a_file_gives_the_same_as_pillow(kind, at_least):
    content = (TAKEN | LEFT)[kind]
    for reads in ("full", "thumbnail"):
        with_it, without = both(content, at_least, reads)
        assert with_it == without


@pytest.mark.parametrize("kind", TAKEN)
def test_ordinary_files_are_decoded_alone(kind):
    stream = io.BytesIO(TAKEN[kind])
    assert small_jpeg(stream, 16) is not None


@pytest.mark.parametrize("kind", LEFT)
def test_other_files_are_left_to_pillow_from_their_beginning(kind):
    stream = io.BytesIO(LEFT[kind])
    assert small_jpeg(stream, 16) is None
    assert stream.tell() == 0


def test_files_that_are_large_in_pixels_or_bytes_are_left_to_pillow(monkeypatch):
    content = TAKEN["larger"]
    assert small_jpeg(io.BytesIO(content), None) is not None
    monkeypatch.setattr(small, "LARGE", 500 * 375 - 1)
    assert small_jpeg(io.BytesIO(content), None) is None
    monkeypatch.undo()
    monkeypatch.setattr(small, "_MOST", 1 << 17)
    behind = bytes((1 << 17) - len(content))
    assert small_jpeg(io.BytesIO(content + behind[1:]), None) is not None
    assert small_jpeg(io.BytesIO(content + behind), None) is None


def test_a_file_that_embeds_a_picture_is_left_to_who_looks_for_it():
    content = with_thumbnail(TAKEN["larger"], 160)
    assert small_jpeg(io.BytesIO(content), 48, embedded=True) is None
    assert small_jpeg(io.BytesIO(content), 48) is not None
    indexed = with_segment(PLAIN, 0xE2, b"MPF\0" + bytes(20))
    assert small_jpeg(io.BytesIO(indexed), 16, embedded=True) is None
    tally = Tally()
    open_image(content, 48, "thumbnail", tally)
    open_image(PLAIN, 16, "thumbnail", tally)
    assert tally.counts == {"used": 1, "absent": 1}


MUTATED = with_segment(jpeg(picture(40, 24), exif=turned(6)), 0xFE, b"comment")


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=examples(200, 20_000), deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(MUTATED) - 1), st.integers(0, 255)), max_size=3),
    st.integers(0, len(MUTATED)),
    st.integers(0, 40),
    st.sampled_from([None, 5]),
)
def test_a_mutated_file_gives_the_same_as_pillow(changed, at, removed, at_least):
    broken = bytearray(MUTATED)
    for place, value in changed:
        broken[place] = value
    for content in (bytes(broken), bytes(broken[:at] + broken[at + removed :])):
        with_it, without = both(content, at_least, "thumbnail")
        assert with_it == without


def test_a_head_says_size_and_metadata():
    head = head_of(TAKEN["orientation 6"])
    assert head is not None
    assert (head.size, head.xmp, head.indexed) == ((90, 61), None, False)
    assert head.exif == b"Exif\0\0" + turned(6).tobytes().removeprefix(b"Exif\0\0")


def test_only_a_decoder_that_gives_pillow_s_pixels_is_used(monkeypatch, caplog):
    name, found = decoder()
    assert name == "simplejpeg"

    def missing():
        raise ImportError("no such module")

    def other():
        return lambda content, size, by: found(content, size, by) ^ (by == 4)

    decoder.cache_clear()
    with caplog.at_level(logging.DEBUG, decoders.__name__):
        monkeypatch.setattr(decoders, "_TABLE", {"absent": missing, "other": other})
        assert decoder() is None
        assert decoders.INSTALL_JPEG in caplog.text
        assert "other isn't used" in caplog.text
        decoder.cache_clear()
        monkeypatch.setattr(decoders, "_TABLE", {"other": other, "same": lambda: found})
        assert decoder() == ("same", found)
    decoder.cache_clear()
