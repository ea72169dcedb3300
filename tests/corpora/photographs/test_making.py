"""Photographs are made so that they open as the pictures they were made of, and cost what real ones
cost: what their metadata says is read back by Pillow, which knows nothing of how it was written."""

import io
import itertools

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from corpora import CorpusError, open_image
from corpora.photographs.camera import Camera
from corpora.photographs.making import Photograph, framed, photograph
from corpora.photographs.thumbnails import STALE

SMALL = Camera(pixels=120_000, noise=0.0, absent=0.0, stale=0.0)
IFD1 = ExifTags.IFD.IFD1


def picture(size=(96, 72), seed=0) -> Image.Image:
    """Smooth and without any symmetry, so that turning or mirroring it would show."""
    width, height = size
    across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    rng = np.random.default_rng(seed)
    a, b, c = rng.uniform(0.5, 1.0, 3)
    colours = np.stack([a * across, b * down**2, c * (1 - across) * down], axis=-1)
    return Image.fromarray((255 * colours).round().astype("uint8"))


def made(camera: Camera, number: int = 0, size=(96, 72), seed: int = 0) -> Photograph:
    return photograph(picture(size), camera, number, seed)


def apart(one: Image.Image, other: Image.Image) -> float:
    """Mean difference of two pictures of the same size, in levels of 255."""
    assert one.size == other.size
    return float(np.abs(np.asarray(one, dtype=float) - np.asarray(other, dtype=float)).mean())


def thumbnail_of(photo: Photograph) -> Image.Image | None:
    """The thumbnail as it is stored, found by Pillow's own reading of the EXIF."""
    exif = Image.open(io.BytesIO(photo.content)).getexif()
    small = exif.get_ifd(IFD1)
    if not small:
        return None
    block = photo.content[photo.content.index(b"Exif\0\0") + 6 :]
    start, length = small[ExifTags.Base.JpegIFOffset], small[ExifTags.Base.JpegIFByteCount]
    return Image.open(io.BytesIO(block[start : start + length])).convert("RGB")


def upright_thumbnail(photo: Photograph) -> Image.Image:
    """The thumbnail, turned as the file says of its picture."""
    small = thumbnail_of(photo)
    small.getexif()[ExifTags.Base.Orientation] = photo.orientation
    return ImageOps.exif_transpose(small)


def seen(camera: Camera, size: tuple[int, int]) -> dict[int, Photograph]:
    """A photograph for each orientation that is drawn."""
    photos = (made(camera, number, size) for number in range(40))
    return {photo.orientation: photo for photo in photos}


@pytest.mark.parametrize("size", [(96, 72), (72, 96)])
def test_a_file_opens_upright_as_the_picture_it_was_made_of(size):
    photos = seen(SMALL, size)
    assert set(photos) == ({1, 3} if size[0] > size[1] else {6, 8})
    for photo in photos.values():
        assert photo.size == (400, 300), "a sensor lies across however the camera is held"
        opened = open_image(photo.content)
        assert opened.size == ((400, 300) if size[0] > size[1] else (300, 400))
        assert apart(opened.resize(size, Image.Resampling.BOX), picture(size)) < 1.5


@pytest.mark.parametrize("size", [(96, 72), (72, 96)])
@pytest.mark.parametrize("edge", [160, 91])
def test_the_thumbnail_shows_the_same_turned_alike(size, edge):
    for photo in seen(Camera(pixels=120_000, thumbnail=edge, absent=0, stale=0), size).values():
        small = upright_thumbnail(photo)
        assert sorted(small.size) == [round(edge * 0.75), edge]
        assert photo.thumbnail == "true"
        opened = open_image(photo.content).resize(small.size, Image.Resampling.BOX)
        assert apart(small, opened) < 4


def test_three_to_two_has_black_bars_in_its_thumbnail_unless_told_otherwise():
    camera = Camera(pixels=240_000, aspect="3:2", noise=0, absent=0, stale=0)
    boxed = thumbnail_of(photograph(picture((90, 60)), camera, 0, 0))
    assert boxed.size == (160, 120)
    rows = np.asarray(boxed).mean(axis=(1, 2))
    assert rows[:5].max() < 4
    assert rows[-5:].max() < 4
    whole = Camera(pixels=240_000, aspect="3:2", noise=0, absent=0, stale=0, letterbox=False)
    bare = thumbnail_of(photograph(picture((90, 60)), whole, 0, 0))
    assert bare.size == (160, 107)
    assert apart(boxed.crop((0, 6, 160, 113)), bare) < 4


@pytest.mark.parametrize("kind", STALE)
def test_a_stale_thumbnail_shows_something_else(kind):
    camera = Camera(pixels=120_000, noise=0, absent=0, stale=1)
    photos = (made(camera, number, (72, 96)) for number in range(30))
    photo = next(photo for photo in photos if photo.thumbnail == kind)
    opened = open_image(photo.content)
    assert apart(opened.resize((72, 96), Image.Resampling.BOX), picture((72, 96))) < 1.5
    small = upright_thumbnail(photo)
    if kind == "not turned":
        assert photo.orientation == 1
        assert photo.size == (300, 400)
        assert small.size == (160, 120), "the picture was turned to stand, its thumbnail was not"
    else:
        assert apart(small, opened.resize(small.size, Image.Resampling.BOX)) > 15


def test_shares_are_as_asked_for():
    camera = Camera(pixels=2_000, absent=0.3, stale=0.2, preview=0.5, web=0.4, web_edge=32)
    photos = [made(camera, number, (24, 18)) for number in range(400)]
    of_camera = [photo for photo in photos if photo.camera]
    assert 0.53 < len(of_camera) / len(photos) < 0.67

    def share(kinds: tuple[str, ...]) -> float:
        return sum(photo.thumbnail in kinds for photo in of_camera) / len(of_camera)

    assert 0.22 < share(("none",)) < 0.38
    assert 0.13 < share(STALE) < 0.27
    assert 0.4 < sum(photo.preview for photo in of_camera) / len(of_camera) < 0.6
    for photo in photos[:60]:
        small = thumbnail_of(photo)
        assert (small is None) == (photo.thumbnail == "none")


def test_a_preview_lies_behind_the_picture_where_the_index_says():
    photo = made(Camera(pixels=3_000_000, noise=0, absent=0, stale=0, preview=1))
    both = Image.open(io.BytesIO(photo.content))
    assert both.format == "MPO"
    assert both.n_frames == 2
    assert both.mpinfo[0xB002][1]["Attribute"]["MPType"] == "Large Thumbnail (Full HD Equivalent)"
    whole = both.convert("RGB")
    both.seek(1)
    assert both.size == (1620, 1215)
    assert apart(both.convert("RGB"), whole.resize((1620, 1215), Image.Resampling.BOX)) < 2


def test_web_sized_files_are_small_and_bare():
    photo = made(Camera(web=1.0), size=(60, 90))
    opened = Image.open(io.BytesIO(photo.content))
    assert not photo.camera
    assert opened.size == (333, 500)
    assert "exif" not in opened.info
    assert len(photo.content) < 150_000


def test_a_camera_file_has_the_size_and_the_work_of_one():
    photo = made(Camera(absent=0, stale=0))
    assert photo.size == (4000, 3000)
    assert 3e6 < len(photo.content) < 6.5e6
    opened = Image.open(io.BytesIO(photo.content))
    assert [sampling for _, *sampling, _ in opened.layer] == [[2, 2], [1, 1], [1, 1]]
    start = photo.content.index(b"\xff\xd8", 2)
    assert 8_000 < start < 65_536, "the thumbnail lies behind the maker's note, early in the file"


@pytest.mark.parametrize("ratio", [4 / 3, 3 / 4, 1.5])
@pytest.mark.parametrize("size", [(50, 50), (80, 30), (31, 90)])
def test_nothing_of_a_picture_is_cut_away(size, ratio):
    frame = framed(picture(size), ratio)
    assert frame.width / frame.height == pytest.approx(ratio, rel=0.04)
    left, top = (frame.width - size[0]) // 2, (frame.height - size[1]) // 2
    assert apart(frame.crop((left, top, left + size[0], top + size[1])), picture(size)) == 0


def test_the_square_in_the_middle_is_that_of_a_square_picture():
    for number in range(4):
        opened = open_image(made(SMALL, number, (60, 60)).content)
        middle = ImageOps.fit(opened, (60, 60), Image.Resampling.BOX)
        assert apart(middle, picture((60, 60))) < 1.5


def test_the_same_seed_makes_the_same_bytes_and_another_makes_others():
    camera = Camera(pixels=20_000, preview=0.5, web=0.3, web_edge=64)
    first = [made(camera, number).content for number in range(8)]
    assert first == [made(camera, number).content for number in range(8)]
    assert len(set(first)) == 8
    others = [made(camera, number, seed=1).content for number in range(8)]
    assert not set(first) & set(others)


def test_noise_has_the_deviation_asked_for_and_no_mean():
    grey = Image.new("RGB", (40, 30), (128, 128, 128))
    for deviation in (3.0, 9.0):
        camera = Camera(pixels=300_000, noise=deviation, absent=0, stale=0)
        opened = open_image(photograph(grey, camera, 0, 0).content).convert("L")
        levels = np.asarray(opened, dtype=float)
        assert levels.std() == pytest.approx(deviation, rel=0.15)
        assert levels.mean() == pytest.approx(128, abs=0.3)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"absent": 0.6, "stale": 0.6}, {"stale": -0.1}, {"web": 1.5}, {"noise": -1.0}),
        *({"noise": float("nan")}, {"pixels": 0}, {"thumbnail": 0}, {"web_edge": 1}),
    ],
)
def test_settings_that_make_no_photograph_are_refused(wrong):
    with pytest.raises(CorpusError):
        Camera(**wrong)


def test_a_thumbnail_too_large_for_its_segment_is_refused():
    noisy = Image.fromarray(np.random.default_rng(0).integers(0, 256, (900, 1200, 3), "uint8"))
    camera = Camera(pixels=1_080_000, thumbnail=1200, absent=0, stale=0)
    with pytest.raises(CorpusError, match="1200 pixels is too large"):
        photograph(noisy, camera, 0, 0)


def test_times_are_valid_and_each_differs():
    times = [
        Image.open(io.BytesIO(made(Camera(pixels=2_000, noise=0), number).content)).getexif()[
            ExifTags.Base.DateTime
        ]
        for number in (0, 1, 1439, 1440, 40_320, 600_000)
    ]
    assert all(before < after for before, after in itertools.pairwise(times))
