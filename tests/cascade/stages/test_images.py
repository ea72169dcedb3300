"""Whatever a caller has opens to the same upright RGB picture, or says that it doesn't."""

import io

import pytest
from PIL import Image

from cascade.stages.images import UnreadableImage, open_image


@pytest.fixture
def picture():
    image = Image.new("RGB", (6, 4), "white")
    image.putpixel((0, 0), (255, 0, 0))
    return image


def encoded(image, **how):
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **how)
    return buffer.getvalue()


def test_every_kind_of_source_gives_the_same_pixels(picture, tmp_path):
    file = tmp_path / "picture.png"
    picture.save(file)
    sources = [picture, file, str(file), encoded(picture), lambda: picture, lambda: lambda: file]
    for source in sources:
        opened = open_image(source)
        assert opened.mode == "RGB"
        assert opened.tobytes() == picture.tobytes()


def test_the_exif_orientation_is_applied(picture):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn clockwise
    turned = open_image(encoded(picture, exif=exif))
    assert turned.size == (4, 6)
    assert turned.getpixel((3, 0)) == (255, 0, 0)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "LA"])
def test_every_colour_mode_becomes_rgb(mode):
    assert open_image(Image.new(mode, (3, 3))).mode == "RGB"


def test_what_does_not_decode_is_unreadable_and_named(picture, tmp_path):
    missing = tmp_path / "missing.jpg"
    with pytest.raises(UnreadableImage, match=r"missing\.jpg"):
        open_image(missing)
    with pytest.raises(UnreadableImage, match="cannot read"):
        open_image(b"not an image")
    with pytest.raises(UnreadableImage, match="cannot read"):
        open_image(encoded(picture)[:60])
    with pytest.raises(UnreadableImage, match=r"missing\.jpg"):
        open_image(lambda: missing)


def test_what_is_no_image_at_all_is_a_mistake_rather_than_unreadable():
    with pytest.raises(TypeError, match="not a int"):
        open_image(3)
