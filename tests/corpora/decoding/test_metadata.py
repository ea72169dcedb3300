"""Broken metadata never costs an intact picture, and what the check passes opens later."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from datasets import Dataset, Features, Value
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, PngImagePlugin, features

from corpora import drop_unreadable, open_image
from corpora.decoding.orientation import in_exif, in_xmp, orientation
from corpora.readers.rows import FEATURES
from tests.lanes import examples, sweep

FORMS = {
    "JPEG": {"quality": 95},
    "PNG": {},
    "WEBP": {"lossless": True},
    **({"AVIF": {"quality": 100}} if features.check("avif") else {}),
}
TAGS = {
    "Make": 0x10F,
    "XResolution": 0x11A,
    "ResolutionUnit": 0x128,
    "DateTime": 0x132,
    "Exif IFD": 0x8769,
    "GPS IFD": 0x8825,
    "thumbnail": 0x201,
    "UserComment": 0x9286,
    "SubIFDs": 0x14A,
    "PrintIM": 0xC4A5,
}


def picture(seed=0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def encoded(form, image=None, **options) -> bytes:
    stream = io.BytesIO()
    (image or picture()).save(stream, form, **FORMS.get(form, {}), **options)
    return stream.getvalue()


def entry(tag, kind, count, value: bytes) -> bytes:
    return struct.pack("<HHI", tag, kind, count) + value[:4].ljust(4, b"\0")


TURNED = entry(0x112, 3, 1, b"\6")


def exif(*entries: bytes, tail=b"\xff" * 40) -> bytes:
    directory = struct.pack("<H", len(entries)) + b"".join(sorted(entries)) + bytes(4)
    return b"Exif\0\0II*\0\x08\0\0\0" + directory + tail


def corpus_of(content: bytes) -> Dataset:
    columns = Features({"image": FEATURES["image"], "key": Value("string")})
    return Dataset.from_dict({"image": [content], "key": ["x"]}, features=columns)


def everywhere(content: bytes) -> np.ndarray:
    """The picture as `open_image` and as the column of a corpus give it; the check must pass."""
    corpus = corpus_of(content)
    assert drop_unreadable(corpus) == (corpus, [])
    opened = np.asarray(open_image(content))
    assert np.array_equal(opened, np.asarray(corpus[0]["image"]))
    return opened


def stored(form) -> np.ndarray:
    with Image.open(io.BytesIO(encoded(form))) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("tag", sweep(TAGS, ["Make", "Exif IFD", "thumbnail"]))
def test_a_broken_entry_beside_the_orientation_costs_nothing(form, tag):
    upright = np.rot90(stored(form), -1)
    for kind in sweep((0, 1, 2, 3, 5, 6, 9, 10, 11, 12, 13, 65535), (0, 2, 3, 5, 12, 65535)):
        for count, value in ((1, b"\xff" * 4), (3, b"\x1a\0\0\0"), (2**31, b"\xff" * 4)):
            block = exif(TURNED, entry(TAGS[tag], kind, count, value))
            assert np.array_equal(everywhere(encoded(form, exif=block)), upright), (kind, count)


@settings(max_examples=examples(40, 150))
@given(
    st.sampled_from(["JPEG", "PNG", "WEBP"]),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), min_size=1, max_size=20),
)
@example("JPEG", [(8, 0xFF), (9, 0xFF)])
@example("PNG", [(0, 0)])
def test_whatever_is_wrong_with_the_exif_the_picture_is_there(form, changes):
    whole = exif(TURNED, *(entry(tag, 2, 8, b"\x08\0\0\0") for tag in sorted(TAGS.values())))
    content = encoded(form, exif=whole)
    block = whole[6:]
    at = content.index(block)
    broken = bytearray(block)
    for place, value in changes:
        broken[place % len(broken)] = value
    opened = everywhere(content[:at] + bytes(broken) + content[at + len(block) :])
    turn = {6: -1, 3: 2, 8: 1}.get(in_exif(bytes(broken)) or 1)
    if in_exif(bytes(broken)) in (None, 1, 3, 6, 8):
        expected = stored(form) if turn is None else np.rot90(stored(form), turn)
        assert np.array_equal(opened, expected)
    else:
        assert opened.size == stored(form).size


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_all_eight_orientations_are_those_of_pillow(form, turn):
    if form not in FORMS and form != "TIFF":
        pytest.skip("this Pillow has no AVIF")
    block = Image.Exif()
    block[0x112] = turn
    content = encoded(form, exif=block)
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        expected = ImageOps.exif_transpose(image).convert("RGB")
    assert np.array_equal(everywhere(content), np.asarray(expected))


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (entry(0x112, 3, 1, b"\x08"), 8),
        (entry(0x112, 4, 1, b"\x08"), 8),
        (entry(0x112, 1, 1, b"\x08"), 8),
        (entry(0x112, 2, 2, b"8"), 8),
        (entry(0x112, 0, 9, b"\x08"), 8),
        (entry(0x112, 3, 1, b"\x09"), None),
        (entry(0x112, 3, 1, b"\0"), None),
    ],
)
def test_an_orientation_of_another_type_is_read_and_one_that_is_none_is_not(value, found):
    block = exif(value)
    assert in_exif(block) == in_exif(block[6:]) == found
    assert in_exif(b"Exif\0\0MM" + block[8:]) is None  # the other byte order: another number
    assert in_exif(b"Exif\0\0??" + block[8:]) == found
    assert in_exif(block[: 6 + 8 + 2 + 12]) == found
    assert in_exif(block[: 6 + 8 + 2 + 11]) is None


@given(st.binary(max_size=200))
def test_no_exif_and_no_xmp_is_too_broken_to_look_at(block):
    assert in_exif(block) in (None, *range(1, 9))
    assert in_exif(b"II*\0\x08\0\0\0" + block) in (None, *range(1, 9))
    assert in_xmp(block) is None or b"Orientation" in block


def test_xmp_is_asked_where_exif_says_nothing():
    packet = b'<rdf tiff:Orientation="6"/>'
    content = encoded("JPEG", xmp=packet)
    assert np.array_equal(everywhere(content), np.rot90(stored("JPEG"), -1))
    image = picture()
    image.info["XML:com.adobe.xmp"] = 3  # what no file gives
    assert orientation(image) == 1
    image.getexif()[0x112] = 8
    assert open_image(image).size == image.size[::-1]


def chunk(kind: bytes, body: bytes, crc: int | None = None) -> bytes:
    crc = zlib.crc32(kind + body) if crc is None else crc
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)


PNG_CHUNKS = {
    "a text that unpacks to 80 MB": chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(80_000_000))),
    "a text that isn't packed": chunk(b"zTXt", b"k\0\0" + b"\xff" * 30),
    "a packing that doesn't exist": chunk(b"zTXt", b"k\0\7" + b"\xff" * 30),
    "an international text without parts": chunk(b"iTXt", b"k"),
    "a wrong check sum": chunk(b"tEXt", b"k\0v", crc=1),
    "a colour profile that isn't packed": chunk(b"iCCP", b"p\0\0" + b"\xff" * 9),
    "a colour profile that unpacks to 80 MB": chunk(
        b"iCCP", b"p\0\0" + zlib.compress(bytes(80_000_000))
    ),
    "a resolution of two bytes": chunk(b"pHYs", b"\0\0"),
    "a gamma of one byte": chunk(b"gAMA", b"\0"),
    "EXIF in hexadecimal that is none": chunk(
        b"tEXt", b"Raw profile type exif\0\nexif\n  9\nzz0x!"
    ),
}


@pytest.mark.parametrize("kind", PNG_CHUNKS)
def test_a_png_loses_nothing_by_its_other_chunks(kind):
    turned = encoded("PNG", exif=exif(TURNED))
    for content, expected in (
        (encoded("PNG"), stored("PNG")),
        (turned, np.rot90(stored("PNG"), -1)),
    ):
        header = 8 + 25  # signature and IHDR
        for at in (header, len(content) - 12):
            broken = content[:at] + PNG_CHUNKS[kind] + content[at:]
            assert np.array_equal(everywhere(broken), expected)


def test_a_png_by_imagemagick_is_turned():
    block = exif(TURNED)
    text = PngImagePlugin.PngInfo()
    text.add_text("Raw profile type exif", f"\nexif\n{len(block):8}\n{block.hex()}\n", zip=True)
    content = encoded("PNG", pnginfo=text)
    upright = np.rot90(stored("PNG"), -1)
    assert np.array_equal(everywhere(content), upright)
    broken = content[:33] + PNG_CHUNKS["a wrong check sum"] + content[33:]
    assert np.array_equal(everywhere(broken), upright)


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


SEGMENTS = {
    "an index of pictures that is none": segment(0xE2, b"MPF\0" + b"\xff" * 40),
    "an empty index of pictures": segment(0xE2, b"MPF\0"),
    "an index of a million pictures": segment(
        0xE2, b"MPF\0II*\0\x08\0\0\0\1\0" + entry(0xB001, 4, 1, b"\x40\x42\x0f\0") + bytes(4)
    ),
    "a profile in parts that don't fit": segment(0xE2, b"ICC_PROFILE\0\x09\x03" + b"x" * 9),
    "Photoshop's resources, cut": segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\x00\x10x"),
    "XMP that isn't text": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"\xff" * 30),
    "a short JFIF": segment(0xE0, b"JFIF"),
    "a short Adobe": segment(0xEE, b"Adobe"),
    "a comment of bytes": segment(0xFE, b"\xff" * 50),
}


@pytest.mark.parametrize("kind", SEGMENTS)
def test_a_jpeg_loses_nothing_by_its_other_segments(kind):
    content = encoded("JPEG", exif=exif(TURNED))
    broken = content[:2] + SEGMENTS[kind] + content[2:]
    assert np.array_equal(everywhere(broken), np.rot90(stored("JPEG"), -1))


@pytest.mark.parametrize("tag", [0x8769, 0x8825, 0xA005, 0x14A, 0x2BC, 0x8773, 0x83BB])
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_a_tiff_loses_nothing_by_its_other_directories(tag, compression):
    block = Image.Exif()
    block[0x112], block[0x131] = 6, "abc"
    content = bytearray(encoded("TIFF", exif=block, compression=compression))
    (start,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, start)
    places = [start + 2 + 12 * number for number in range(count)]
    (at,) = (p for p in places if struct.unpack_from("<H", content, p)[0] == 0x131)
    content[at : at + 2] = struct.pack("<H", tag)
    for value in (b"\xff" * 4, b"\xff\xff\0\0", bytes(4)):
        for kind in (4, 13, 1, 200):
            content[at + 2 : at + 4] = struct.pack("<H", kind)
            content[at + 8 : at + 12] = value
            assert np.array_equal(everywhere(bytes(content)), np.rot90(stored("PNG"), -1))


def test_a_webp_whose_exif_is_cut_short_still_opens():
    content = bytearray(encoded("WEBP", exif=exif(TURNED)))
    at = content.index(b"EXIF")
    struct.pack_into("<I", content, at + 4, 10**6)
    assert np.array_equal(everywhere(bytes(content)), np.rot90(stored("WEBP"), -1))


def test_broken_metadata_is_no_reason_to_warn():
    block = exif(TURNED, *(entry(tag, 2, 500, b"\xff\0\0\0") for tag in TAGS.values()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_image(encoded("JPEG", exif=block)).size == (20, 30)
