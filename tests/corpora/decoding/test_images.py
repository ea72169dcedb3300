import warnings
from io import BytesIO

import numpy as np
import pytest
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from PIL import Image

from corpora import CorpusError, drop_unreadable, open_image


def encoded(image, form="PNG", **options) -> bytes:
    stream = BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def noise(size=(80, 60), seed=0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def rotated(image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    return encoded(image, "JPEG", exif=exif)


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "RGBA", "LA", "1", "I;16", "I", "RGB"])
def test_every_mode_comes_out_as_rgb(mode):
    grey = Image.new("L", (5, 3), 100)
    image = Image.new(mode, (5, 3), 100 * 256) if mode[0] == "I" else grey.convert(mode)
    form = "TIFF" if mode in ("CMYK", "I") else "PNG"  # which PNG doesn't have
    opened = open_image(encoded(image, form))
    assert opened.mode == "RGB"
    if mode != "1":
        assert np.abs(np.asarray(opened).astype(int) - 100).max() <= 2


def test_a_transparent_palette_is_no_reason_to_warn():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 9, 80, 200])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened = open_image(encoded(image, transparency=bytes([0, 128])))
    assert opened.getpixel((0, 0)) == (9, 80, 200)


def test_an_image_turned_by_its_camera_comes_out_upright():
    image = Image.new("RGB", (16, 8), "white")
    image.paste("black", (0, 0, 8, 8))  # left half black: turned, the top half is
    upright = open_image(rotated(image))
    assert upright.size == (8, 16)
    assert np.asarray(upright)[2, 4].max() < 60
    assert np.asarray(upright)[13, 4].min() > 200
    assert open_image(upright).size == (8, 16)


def test_path_bytes_undecoded_row_and_decoded_image_give_the_same(tmp_path):
    path = tmp_path / "x.png"
    noise().save(path)
    ways = (path, str(path), path.read_bytes(), {"path": str(path), "bytes": None}, noise())
    for way in ways:
        assert np.array_equal(np.asarray(open_image(way)), np.asarray(noise()))


@pytest.mark.parametrize(
    "broken", [b"", b"GIF89a", b"not an image", encoded(noise(), "JPEG")[:999]]
)
def test_what_cant_be_decoded_is_an_error_that_names_it(broken, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(broken)
    with pytest.raises(CorpusError, match=r"broken\.jpg: can't be decoded"):
        open_image(tmp_path / "broken.jpg")
    with pytest.raises(CorpusError, match=f"{len(broken)} bytes: can't be decoded"):
        open_image(broken)


@pytest.fixture
def files(tmp_path):
    whole = encoded(noise((160, 120)), "JPEG")
    progressive = encoded(noise((160, 120)), "JPEG", progressive=True)
    contents = {
        "good.jpg": whole,
        "cut_late.jpg": whole[:-40],
        "cut_early.jpg": whole[: len(whole) // 2],
        "progressive_cut.jpg": progressive[: len(progressive) // 2],
        "cut.png": encoded(noise())[:-600],
        "text.jpg": b"<html>404</html>",
        "empty.jpg": b"",
        "small.jpg": encoded(noise((3, 2)), "JPEG"),
        "cmyk.jpg": encoded(noise().convert("CMYK"), "JPEG"),
        "palette.png": encoded(noise().convert("P")),
        "turned.jpg": rotated(noise()),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return [tmp_path / name for name in contents] + [tmp_path / "deleted.jpg"]


READABLE = ["good.jpg", "small.jpg", "cmyk.jpg", "palette.png", "turned.jpg"]
FEATURES = Features({"image": ImageFeature(), "key": Value("string")})


def test_unreadable_images_are_dropped_and_named(files):
    columns = {"image": [str(file) for file in files], "key": [file.name for file in files]}
    kept, dropped = drop_unreadable(Dataset.from_dict(columns, features=FEATURES))
    assert kept["key"][:] == READABLE
    assert sorted(kept["key"][:] + dropped) == sorted(columns["key"])
    assert all(open_image(row["image"]).mode == "RGB" for row in kept)


def test_a_whole_corpus_is_given_back_as_it_is(files):
    names = [file for file in files if file.name in READABLE]
    columns = {"image": [str(file) for file in names], "key": [file.name for file in names]}
    corpus = Dataset.from_dict(columns, features=FEATURES)
    assert drop_unreadable(corpus) == (corpus, [])


def test_embedded_images_and_a_selection_of_rows_are_judged_alike(files):
    contents = [file.read_bytes() for file in files if file.exists()]
    columns = {"image": contents, "key": [file.name for file in files if file.exists()]}
    corpus = Dataset.from_dict(columns, features=FEATURES)
    backwards = corpus.select(range(len(corpus) - 1, -1, -1))
    kept, dropped = drop_unreadable(backwards)
    assert kept["key"][:] == READABLE[::-1]
    assert len(dropped) == len(contents) - len(READABLE)
