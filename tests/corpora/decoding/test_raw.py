"""Of a camera's raw file the picture that the camera made is taken, or it is developed."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from corpora import CorpusError, open_image
from corpora.decoding import raw
from corpora.pixels import pixel_values
from corpora.readers.walking import look
from tests.conftest import tiny_processor

pytest.importorskip("rawpy")

SHORT, LONG, RATIONAL, SIGNED = 3, 4, 5, 10


def dng(preview: Image.Image | None, orientation: int = 1, size=(64, 48), exif=b"") -> bytes:
    """A digital negative: a sensor's mosaic that sees red, and perhaps a JPEG to look at."""
    width, height = size
    mosaic = np.full((height, width), 400, "<u2")
    mosaic[::2, ::2] = 9000  # the red filters
    jpeg = io.BytesIO()
    if preview is not None:
        preview.save(jpeg, "JPEG", quality=95, exif=exif)
    strip = mosaic.tobytes()
    matrix = [number for value in (1, 0, 0, 0, 1, 0, 0, 0, 1) for number in (value, 1)]
    sensor = [
        (254, LONG, [0]), (256, LONG, [width]), (257, LONG, [height]), (258, SHORT, [16]),
        (259, SHORT, [1]), (262, SHORT, [32803]), (273, LONG, ["strip"]), (277, SHORT, [1]),
        (278, LONG, [height]), (279, LONG, [len(strip)]), (33421, SHORT, [2, 2]),
        (33422, 1, [0, 1, 1, 2]), (50717, LONG, [16000]),
    ]  # fmt: skip
    about = [
        (271, 2, b"Maker\0"), (272, 2, b"Model\0"), (274, SHORT, [orientation]),
        (50706, 1, [1, 4, 0, 0]), (50708, 2, b"Maker Model\0"), (50721, SIGNED, matrix),
        (50728, RATIONAL, [1, 1, 1, 1, 1, 1]), (50778, SHORT, [21]),
    ]  # fmt: skip
    small = [
        (254, LONG, [1]), (256, LONG, [preview.width]), (257, LONG, [preview.height]),
        (258, SHORT, [8, 8, 8]), (259, SHORT, [7]), (262, SHORT, [6]), (273, LONG, ["jpeg"]),
        (277, SHORT, [3]), (278, LONG, [preview.height]), (279, LONG, [len(jpeg.getvalue())]),
    ] if preview is not None else []  # fmt: skip
    places = {"strip": 4096, "jpeg": 4096 + len(strip)}
    first = sensor + about
    if small:
        first = [*about, (254, LONG, [0]), *sensor[1:]]
    file = bytearray(b"II*\0" + struct.pack("<I", 8))
    file += directory(first, 8, places, 1536 if small else 0)
    file += bytes(1536 - len(file))
    if small:
        file += directory(small, 1536, places, 0)
    file += bytes(4096 - len(file))
    return bytes(file) + strip + jpeg.getvalue()


def directory(entries, start: int, places: dict[str, int], following: int) -> bytes:
    """A TIFF directory and its values behind it."""
    sizes = {1: "B", 2: "s", SHORT: "H", LONG: "I", RATIONAL: "I", SIGNED: "i"}
    rows, behind = b"", b""
    after = start + 2 + 12 * len(entries) + 4
    for tag, kind, values in sorted(entries):
        if kind == 2:
            packed, count = values, len(values)
        else:
            values = [places.get(value, value) for value in values]
            packed = struct.pack(f"<{len(values)}{sizes[kind]}", *values)
            count = len(values) // 2 if kind in (RATIONAL, SIGNED) else len(values)
        if len(packed) > 4:
            place = after + len(behind)
            behind += packed + b"\0" * (len(packed) % 2)
            packed = struct.pack("<I", place)
        rows += struct.pack("<HHI", tag, kind, count) + packed.ljust(4, b"\0")
    return struct.pack("<H", len(entries)) + rows + struct.pack("<I", following) + behind


def halves(size=(800, 600)) -> Image.Image:
    """Green on the left, blue on the right."""
    image = Image.new("RGB", size, (0, 200, 0))
    image.paste((0, 0, 200), (size[0] // 2, 0, *size))
    return image


def colour(image: Image.Image, x: float, y: float) -> str:
    pixel = image.getpixel((int(x * (image.width - 1)), int(y * (image.height - 1))))
    return ("red", "green", "blue")[int(np.argmax(pixel))]


def test_the_picture_that_the_camera_made_is_taken(tmp_path):
    path = tmp_path / "x.DNG"
    path.write_bytes(dng(halves()))
    for source in (path, str(path), {"path": "in/a.dng", "bytes": path.read_bytes()}):
        opened = open_image(source)
        assert opened.size == (800, 600)
        assert (colour(opened, 0.1, 0.5), colour(opened, 0.9, 0.5)) == ("green", "blue")
    assert open_image(path, at_least=100).size == (200, 150)


@pytest.mark.parametrize(("orientation", "top"), [(6, "green"), (8, "blue")])
def test_it_is_turned_as_the_raw_file_says(orientation, top):
    opened = open_image({"path": "x.dng", "bytes": dng(halves(), orientation)})
    assert opened.size == (600, 800)
    assert colour(opened, 0.5, 0.1) == top


def test_it_is_turned_only_once_where_it_says_so_itself():
    exif = Image.Exif()
    exif[0x112] = 6
    content = dng(halves(), 6, exif=exif.tobytes())
    assert open_image({"path": "x.dng", "bytes": content}).size == (600, 800)


@pytest.mark.parametrize("preview", [None, halves((160, 120))])
def test_without_a_picture_worth_looking_at_the_file_is_developed(preview):
    opened = open_image({"path": "x.dng", "bytes": dng(preview, size=(400, 300))})
    assert opened.size == (200, 150)
    assert colour(opened, 0.5, 0.5) == "red"


def test_without_rawpy_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(raw, "raw_is_read", lambda: False)
    with pytest.raises(CorpusError, match=r"pip install 'clip-cascade\[raw\]'"):
        open_image({"path": "x.dng", "bytes": dng(halves())})


@pytest.mark.parametrize("end", [0, 10, 500, 5000])
def test_a_broken_one_is_an_error_of_one_line(end):
    with pytest.raises(CorpusError) as raised:
        open_image({"path": "x.dng", "bytes": dng(None)[:end]})
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith("x.dng: can't be decoded")


@pytest.mark.parametrize(
    "start",
    [b"FUJIFILMCCD-RAW 0", b"II*\0\x10\0\0\0CR\2\0", b"\0\0\0\x18ftypcrx ", b"IIRO\0\0", b"IIU\0"],
)
def test_some_are_told_by_their_first_bytes(start):
    assert raw.is_raw(start.ljust(16, b"\0")[:16])
    with pytest.raises(CorpusError, match="can't be decoded"):
        open_image(start.ljust(300, b"\0"))


def test_pictures_are_not_taken_for_raw_files():
    for kind in ("PNG", "JPEG", "TIFF", "WEBP"):
        stream = io.BytesIO()
        halves().save(stream, kind)
        assert not raw.is_raw(stream.getvalue()[:16])


def test_raw_files_in_a_folder_are_photographs_and_reach_a_tower(tmp_path):
    (tmp_path / "a.NEF").write_bytes(dng(halves()))
    (entry,) = look(tmp_path)
    assert (entry.name, entry.ignored) == ("a.NEF", None)
    assert pixel_values(tiny_processor(), [tmp_path / "a.NEF"]).shape == (1, 3, 16, 16)
