"""A thumbnail stands for its picture where it is large enough and shows the same, only there."""

import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image
from PIL.JpegImagePlugin import JpegImageFile

from corpora import CorpusError, open_image
from corpora.decoding.images import any_has_thumbnail, has_thumbnail
from corpora.decoding.orientation import TURNS
from corpora.decoding.reads import READS, Tally, enough, wanted
from corpora.decoding.simulating import as_thumbnail, usual_long_side, with_thumbnail
from corpora.decoding.thumbnails import shows_same
from tests.lanes import examples

AT_LEAST = 144


def picture(width=480, height=320, seed=0) -> Image.Image:
    """What varies over some pixels, as photographs do, and is no mirror of itself."""
    small = np.random.default_rng(seed).integers(30, 226, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def jpeg(image, quality=90, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality, **options)
    return stream.getvalue()


def exif(thumbnail: bytes, orientation=1, own=None) -> bytes:
    """A camera's EXIF in the other byte order than the project writes, `own` in its IFD1."""
    second = [(0x201, 4, None), (0x202, 4, len(thumbnail))]
    second += [] if own is None else [(0x112, 3, own << 16)]
    at = 8 + 2 + 12 + 4
    place = at + 2 + 12 * len(second) + 4
    block = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x112, 3, 1, orientation, 0, at)
    block += struct.pack(">H", len(second))
    for tag, kind, value in second:
        block += struct.pack(">HHII", tag, kind, 1, place if value is None else value)
    return block + struct.pack(">I", 0) + thumbnail


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def camera_file(image, thumbnail: bytes, orientation=1, own=None, **options) -> bytes:
    content = jpeg(image, **options)
    return (
        content[:2] + segment(0xE1, b"Exif\0\0" + exif(thumbnail, orientation, own)) + content[2:]
    )


def read(content, at_least=AT_LEAST) -> tuple[Image.Image, dict]:
    tally = Tally()
    return open_image(content, at_least, "thumbnail", tally), tally.counts


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_thumbnail_comes_upright_in_the_place_of_its_picture(orientation):
    stored = picture()
    content = camera_file(stored, as_thumbnail(stored, 160), orientation)
    small, counts = read(content)
    assert counts == {"used": 1}
    turn = TURNS.get(orientation)
    upright = stored if turn is None else stored.transpose(turn)
    assert sorted(small.size) == [107, 160]
    assert (small.width > small.height) == (upright.width > upright.height)
    assert shows_same(small, upright)
    assert shows_same(small, open_image(content))
    assert open_image(small).size == small.size  # it isn't turned once more


def letterboxed(image, shade=0) -> Image.Image:
    box = Image.new("RGB", (160, 120), (shade,) * 3)
    box.paste(image.resize((160, 107), Image.Resampling.LANCZOS), (0, 6))
    return box


@pytest.mark.parametrize("quality", [50, 75, 95])
def test_black_bars_are_cut_off(quality):
    content = camera_file(picture(), jpeg(letterboxed(picture()), quality))
    small, counts = read(content)
    assert counts == {"used": 1}
    assert small.width == 160
    assert 104 <= small.height <= 107
    assert shows_same(small, picture())


PNG = io.BytesIO()
picture().resize((160, 107)).save(PNG, "PNG")
WHOLE = as_thumbnail(picture(), 160)


@pytest.mark.parametrize(
    ("thumbnail", "own", "outcome"),
    [
        pytest.param(as_thumbnail(picture(), 40), None, "too small", id="small"),
        pytest.param(as_thumbnail(picture(400, 320), 160), None, "other shape", id="cropped"),
        pytest.param(jpeg(picture(160, 120)), None, "other shape", id="no bars"),
        pytest.param(jpeg(letterboxed(picture(), 90)), None, "other shape", id="grey bars"),
        pytest.param(as_thumbnail(picture(320, 480), 160), None, "other shape", id="upright"),
        pytest.param(jpeg(picture(960, 640)), None, "other shape", id="larger than its picture"),
        pytest.param(WHOLE, 6, "other shape", id="turned otherwise"),
        pytest.param(
            jpeg(picture(160, 107), exif=b"Exif\0\0" + exif(b"", 3)),
            None,
            "other shape",
            id="turned by itself",
        ),
        pytest.param(WHOLE[: len(WHOLE) // 2], None, "broken", id="truncated"),
        pytest.param(PNG.getvalue(), None, "broken", id="no JPEG"),
        pytest.param(b"", None, "absent", id="of no bytes"),
    ],
)
def test_another_thumbnail_is_left_and_the_picture_decoded(thumbnail, own, outcome):
    content = camera_file(picture(), thumbnail, own=own)
    opened, counts = read(content)
    assert counts == {outcome: 1}
    assert np.array_equal(opened, open_image(content, AT_LEAST))


def test_offsets_beyond_the_segment_are_no_thumbnail():
    content = camera_file(picture(), WHOLE)
    for field in (0x201, 0x202):
        at = content.index(struct.pack(">HHI", field, 4, 1)) + 8
        for value in (0xFFFFFFFF, 0x7FFFFFF0, len(content)):
            broken = content[:at] + struct.pack(">I", value) + content[at + 4 :]
            opened, counts = read(broken)
            assert counts == {"absent": 1}
            assert np.array_equal(opened, open_image(content, AT_LEAST))


def test_a_directory_that_follows_itself_ends():
    block = b"II*\0" + struct.pack("<IHHHII", 8, 1, 0x112, 3, 1, 1) + struct.pack("<I", 8)
    content = jpeg(picture())
    content = content[:2] + segment(0xE1, b"Exif\0\0" + block) + content[2:]
    assert read(content)[1] == {"absent": 1}


class Counted(io.BytesIO):
    """A file that counts what is read of it."""

    bytes_read = 0

    def read(self, size=-1):
        content = super().read(size)
        self.bytes_read += len(content)
        return content


@pytest.fixture(scope="module")
def noisy() -> Image.Image:
    pixels = np.random.default_rng(0).normal(0, 25, (1200, 1800, 3))
    return Image.fromarray((picture(1800, 1200) + pixels).clip(0, 255).astype(np.uint8))


def test_only_the_head_of_a_file_is_read(noisy, tmp_path):
    content = camera_file(noisy, as_thumbnail(noisy, 160))
    assert len(content) > 1_000_000
    file = Counted(content)
    small, counts = read(file)
    assert counts == {"used": 1}
    assert file.bytes_read < 20_000
    assert not file.closed
    # as good as counting what a path's file gives: there is no more of it
    (tmp_path / "head.jpg").write_bytes(content[:20_000])
    from_path, counts = read(tmp_path / "head.jpg")
    assert counts == {"used": 1}
    assert np.array_equal(from_path, small)
    with pytest.raises(CorpusError, match=r"head\.jpg: can't be decoded"):
        open_image(tmp_path / "head.jpg", AT_LEAST)


def with_preview(image, kind: int, thumbnail=b"") -> bytes:
    """A JPEG file, an MPF index before its picture, and a smaller picture of that class behind."""
    content, preview = jpeg(image), jpeg(image.resize((600, 400)))
    exif_part = segment(0xE1, b"Exif\0\0" + exif(thumbnail)) if thumbnail else b""

    def index(offset):
        records = struct.pack("<IIIHH", 0x20030000, len(content), 0, 0, 0)
        records += struct.pack("<IIIHH", kind, len(preview), offset, 0, 0)
        entry = struct.pack("<HHII", 0xB002, 7, len(records), 8 + 2 + 12 + 4)
        block = b"II*\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 0) + records
        return segment(0xE2, b"MPF\0" + block)

    base = 2 + len(exif_part) + 8
    whole = len(content) + len(exif_part) + len(index(0))
    return content[:2] + exif_part + index(whole - base) + content[2:] + preview


def test_a_preview_behind_the_picture_is_read_alone(noisy):
    file = Counted(with_preview(noisy, 0x010001, as_thumbnail(noisy, 60)))
    small, counts = read(file, 200)  # too much for the thumbnail
    assert counts == {"used": 1}
    assert small.size == (300, 200)  # of 600 x 400, decoded at half its size
    assert shows_same(small, noisy)
    assert file.bytes_read < 150_000 < len(file.getvalue()) / 5


@pytest.mark.parametrize("kind", [0, 0x020002, 0x030000])
def test_a_gain_map_or_a_disparity_is_no_preview(kind):
    content = with_preview(picture(1200, 800), kind)
    opened, counts = read(content)
    assert counts == {"absent": 1}
    assert np.array_equal(opened, open_image(content, AT_LEAST))
    assert not has_thumbnail(content)


def test_whoever_has_both_can_tell_a_stale_thumbnail():
    image = picture()
    small = Image.open(io.BytesIO(as_thumbnail(image, 160, quality=50)))
    assert shows_same(small, image)
    width, height = image.size
    edited = image.copy()
    edited.paste((255, 255, 255), (0, 0, width // 3, height // 3))
    others = {
        "cropped": image.crop((0, 0, width * 4 // 5, height * 4 // 5)),
        "mirrored": image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        "turned": image.transpose(Image.Transpose.ROTATE_180),
        "grey": image.convert("L").convert("RGB"),
        "brighter": image.point(lambda value: min(255, value + 20)),
        "painted over": edited,
        "another": picture(seed=1),
    }
    assert [name for name, other in others.items() if shows_same(small, other)] == []


def test_a_file_is_given_a_thumbnail_and_keeps_its_picture():
    plain, turned = jpeg(picture()), camera_file(picture(), b"", 6)
    stream = io.BytesIO()
    picture().save(stream, "PNG")
    for content in (plain, turned, stream.getvalue()):
        file = with_thumbnail(content, 90)
        assert np.array_equal(open_image(file), open_image(content))
        small, counts = read(file, 64)
        assert counts == {"used": 1}
        assert max(small.size) == 90
        assert shows_same(small, open_image(content))
    # as Pillow reads it
    directory = Image.open(io.BytesIO(file := with_thumbnail(turned, 90))).getexif()
    second = directory.get_ifd(ExifTags.IFD.IFD1)
    start, length = (second[tag] for tag in (0x201, 0x202))
    with Image.open(io.BytesIO(file[12 + start : 12 + start + length])) as found:
        assert found.size == (90, 60)
    assert directory[0x112] == 6
    assert usual_long_side(224) == 160


def test_of_other_files_the_picture_is_kept_too():
    stream = io.BytesIO()
    picture().save(stream, "WEBP", lossless=True)
    file = with_thumbnail(stream.getvalue(), 90)
    assert np.array_equal(open_image(file), picture())
    assert read(file, 64)[1] == {"used": 1}
    with pytest.raises(CorpusError, match="4 bytes: can't be decoded"):
        with_thumbnail(b"none", 90)


def test_whether_any_file_has_a_thumbnail_is_seen_in_its_head():
    with_one, without = camera_file(picture(), WHOLE), jpeg(picture())
    assert has_thumbnail(with_one[:20_000])
    assert not has_thumbnail(without)
    assert not has_thumbnail(b"no picture")
    assert any_has_thumbnail([without, {"path": "x.jpg", "bytes": with_one}])
    assert not any_has_thumbnail([without, with_one], most=1)


def test_a_heic_file_s_own_thumbnail_is_read():
    pillow_heif = pytest.importorskip("pillow_heif", minversion="1.8")
    stream = io.BytesIO()
    pillow_heif.from_pillow(picture(960, 640)).save(stream, thumbnails=[160], quality=80)
    small, counts = read(stream.getvalue())
    assert counts == {"used": 1}
    assert max(small.size) == 160
    assert shows_same(small, picture(960, 640))
    assert read(stream.getvalue(), 600)[1] == {"too small": 1}


@pytest.mark.parametrize("reads", READS)
@pytest.mark.parametrize("edge", [32, 224])
def test_what_is_decoded_is_at_least_what_is_wanted(reads, edge, noisy):
    content = jpeg(noisy)
    at_least = wanted(edge, reads)
    opened = open_image(content, at_least, reads)
    assert min(opened.size) >= min(at_least, 1200)
    assert min(opened.size) < max(2 * at_least, 1201)
    if reads == "full":
        assert opened.size == noisy.size  # as no file of two megapixels is scaled
        assert np.array_equal(opened, open_image(content))
    assert wanted(None, reads) is None
    assert enough(at_least) <= at_least


MUTATED = camera_file(picture(240, 160), as_thumbnail(picture(240, 160), 80), 6)
HEAD = MUTATED.index(b"\xff\xdb", 4 + 26 + 40)  # where the thumbnail's own tables begin


@settings(max_examples=examples(150, 5000), deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(MUTATED) - 1), st.integers(0, 255)), max_size=4),
    st.lists(st.tuples(st.integers(0, HEAD), st.integers(0, 255)), max_size=3),
    st.integers(0, len(MUTATED)),
    st.booleans(),
)
def test_a_mutated_file_is_a_picture_of_its_own_shape_or_an_error(anywhere, head, end, cut):
    broken = bytearray(MUTATED)
    for at, value in (*anywhere, *head):
        broken[at] = value
    content = bytes(broken[:end] if cut else broken)
    try:
        opened, counts = read(content, 48)
    except CorpusError:
        return
    assert opened.mode == "RGB"
    assert sum(counts.values()) <= 1
    if counts == {"used": 1}:
        stored = JpegImageFile(io.BytesIO(content)).size
        shapes = [stored[0] / stored[1], stored[1] / stored[0]]
        own = opened.width / opened.height
        assert min(abs(own / shape - 1) for shape in shapes) < 0.05
        assert min(opened.size) >= enough(48)
