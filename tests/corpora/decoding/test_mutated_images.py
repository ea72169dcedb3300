"""Whatever bytes come as an image: a picture, or one line that says why there is none.

MUTATED_IMAGES sets how many are tried (120 by default).
"""

import io
import os
import random
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, Features, Value
from PIL import Image, features

from cascade import UnreadableImage
from cascade.stages.images import open_image as open_source
from corpora import CorpusError, drop_unreadable, open_image
from corpora.decoding.images import MAX_PIXELS
from corpora.readers.rows import FEATURES
from tests.conftest import tiny_processor
from tests.lanes import thorough_only

TRIED = int(os.environ.get("MUTATED_IMAGES", 120))
ROOT = Path(__file__).resolve().parents[3]


def encoded(image, form, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def originals() -> list[bytes]:
    dice = np.random.default_rng(0)
    image = Image.fromarray(dice.integers(0, 255, (24, 40, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x112], exif[0x10F] = 6, "maker"
    files = [
        encoded(image, "JPEG", exif=exif),
        encoded(image, "JPEG", progressive=True, comment=b"x" * 50),
        encoded(image.convert("CMYK"), "JPEG"),
        encoded(image, "PNG", exif=exif),
        encoded(image.convert("P"), "PNG", transparency=bytes(range(200))),
        encoded(Image.new("I;16", (9, 7), 3000), "PNG"),
        encoded(image.convert("LA"), "PNG"),
        encoded(image, "GIF", save_all=True, append_images=[image.rotate(90)] * 2),
        encoded(image, "WEBP", exif=exif),
        encoded(image, "WEBP", save_all=True, append_images=[image.rotate(180)]),
        encoded(image, "TIFF", exif=exif),
        encoded(image, "TIFF", compression="tiff_adobe_deflate"),
        encoded(Image.new("F", (9, 7), 0.5), "TIFF"),
        encoded(image.convert("1"), "TIFF"),
        encoded(image, "BMP"),
        encoded(image, "PPM"),
        encoded(image, "TGA"),
        encoded(image, "ICO", sizes=[(16, 16)]),
    ]
    if features.check("avif"):
        files.append(encoded(image, "AVIF", exif=exif))
    if features.check("jpg_2000"):
        files.append(encoded(image, "JPEG2000"))
    return files


def mutated(content: bytes, dice: random.Random) -> bytes:
    broken = bytearray(content)
    way = dice.randrange(6)
    if way == 0:
        return bytes(broken[: dice.randrange(len(broken))])
    if way == 1:  # a part twice
        at = dice.randrange(len(broken))
        return bytes(broken[:at] + broken[max(0, at - 40) :])
    if way == 2:  # a part away
        at = dice.randrange(len(broken))
        return bytes(broken[:at] + broken[at + dice.randrange(1, 30) :])
    # single bytes, most of them in the headers, some to extremes
    near = len(broken) if way == 3 else min(len(broken), 200)
    for _ in range(dice.choice([1, 1, 2, 8])):
        broken[dice.randrange(near)] = dice.choice([0, 255, 127, dice.randrange(256)])
    if way == 5:
        at = dice.randrange(min(len(broken) - 4, 100))
        broken[at : at + 4] = struct.pack(dice.choice(["<I", ">I"]), dice.choice([2**31, 2**16]))
    return bytes(broken)


def test_every_mutated_file_is_a_picture_or_one_line_in_the_check_as_in_the_use(capfd):
    dice, files = random.Random(5), originals()
    contents = [mutated(files[n % len(files)], dice) for n in range(TRIED)]
    columns = Features({"image": FEATURES["image"], "key": Value("string")})
    keys = [str(number) for number in range(TRIED)]
    corpus = Dataset.from_dict({"image": contents, "key": keys}, features=columns)
    processor = tiny_processor()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, dropped = drop_unreadable(corpus)
        from corpora.pixels import pixel_values

        for key, content in zip(keys, contents, strict=True):
            if key in dropped:
                with pytest.raises(CorpusError, match="bytes: ") as error:
                    open_image(content)
                assert "\n" not in str(error.value)
                with pytest.raises(UnreadableImage, match="bytes: "):
                    open_source(content)
            else:
                assert open_image(content).mode == "RGB"
                assert len(pixel_values(processor, [content])) == 1
    assert 0 < len(dropped) < TRIED


def png_of(width, height) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_picture_with_too_many_pixels_is_refused_before_it_is_decoded():
    side = int(MAX_PIXELS**0.5) + 1
    with pytest.raises(CorpusError, match=r"has 89 million pixels; at most 89 are"):
        open_image(png_of(side, side))
    with pytest.raises(CorpusError, match="can't be decoded"):
        open_image(png_of(100_000, 100_000))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
def test_what_is_no_ordinary_file_is_said_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    for path, kind in (
        (tmp_path / "pipe.jpg", "a pipe"),
        (tmp_path / "folder.jpg", "a directory"),
        (Path("/dev/zero"), "a device"),
    ):
        with pytest.raises(CorpusError, match=f"{path}: is {kind}, not a file"):
            open_image(path)
        with pytest.raises(UnreadableImage, match=kind):
            open_source(path)
    with pytest.raises(UnreadableImage, match=r"gone\.jpg"):
        open_source(tmp_path / "gone.jpg")


def test_a_program_in_a_picture_is_not_run():
    with pytest.raises(CorpusError, match="can't be decoded"):
        open_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n%%EOF\n")


@pytest.mark.parametrize("failure", [KeyError("x"), MemoryError(), RecursionError(), OSError("no")])
def test_a_function_that_fails_to_give_an_image_is_a_reason(failure):
    def give():
        raise failure

    with pytest.raises(UnreadableImage, match="cannot read an image"):
        open_source(give)


def test_heic_without_its_decoder_says_what_to_install(monkeypatch):
    monkeypatch.setattr("corpora.decoding.images.HeifImageFile", None)
    with pytest.raises(CorpusError, match=r"pip install 'clip-cascade\[heif\]'"):
        open_image(b"\0\0\0\x18ftypheic" + bytes(100))


def test_heic_is_read_where_its_decoder_is(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    image = Image.new("RGB", (32, 48), (10, 200, 30))
    exif = Image.Exif()
    exif[0x112] = 6
    pillow_heif.from_pillow(image).save(tmp_path / "x.heic", exif=exif.tobytes())
    opened = open_image(tmp_path / "x.heic")
    assert opened.mode == "RGB"
    assert sorted(opened.size) == [32, 48]
    assert np.abs(np.asarray(opened).astype(int) - (10, 200, 30)).max() < 12


@pytest.mark.parametrize(("low", "high", "expected"), [(0, 1, 255), (0, 200, 200)])
def test_floating_point_values_are_scaled_only_if_they_lie_between_0_and_1(low, high, expected):
    image = Image.fromarray(np.array([[low, high]], np.float32))
    assert open_image(encoded(image, "TIFF")).getpixel((1, 0)) == (expected,) * 3


MEMORY = """
import random, sys
sys.path.insert(0, sys.argv[1])
import warnings
warnings.simplefilter("ignore")
from tests.corpora.decoding.test_mutated_images import mutated, originals
from corpora import CorpusError
from corpora.pixels import pixel_values
from tests.conftest import tiny_processor

def peak():
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) // 1024

dice, files, processor = random.Random(5), originals(), tiny_processor()
for content in files:
    pixel_values(processor, [content])
before, skipped = peak(), 0
for number in range(int(sys.argv[2])):
    try:
        pixel_values(processor, [mutated(files[number % len(files)], dice)])
    except CorpusError:
        skipped += 1
print(peak() - before, skipped)
"""


@thorough_only
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="there is no /proc to ask")
def test_no_mutated_file_takes_a_gigabyte():
    asked = subprocess.run(
        [sys.executable, "-c", MEMORY, str(ROOT), str(TRIED)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=600,
    )
    megabytes, skipped = map(int, asked.stdout.split())
    assert megabytes < 1000
    assert 0 < skipped < TRIED
