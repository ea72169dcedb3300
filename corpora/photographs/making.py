"""Photographs made of pictures: as a camera writes them, and as the web has them.

What a file costs to open depends on its size, its noise and what lies before the picture, so a
picture of any size is made into a file that has all three as people's files have them. The same
picture, settings and draws give the same bytes.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image
from PIL.Image import Resampling

from corpora.photographs.camera import ASPECTS, Aspect, Camera
from corpora.photographs.metadata import Shot, exif_segment, index_segment, with_segments
from corpora.photographs.sensor import enlarged
from corpora.photographs.thumbnails import STALE, Thumbnail, jpeg, shown, stored, thumbnail
from corpora.problems import CorpusError

_UPRIGHT = ((6, 0.75), (8, 0.25))
_ACROSS = ((1, 0.9), (3, 0.1))
"""How a camera is held for a picture that is higher than wide, and for another: the orientation
that it writes, and how often."""
_SHARE_UPRIGHT = 0.35
"""Of square pictures, those that become an upright photograph."""
_QUALITY = (90, 95)
_NOTE = (8_000, 24_000)  # bytes
_PREVIEW = (1620, 90)
"""Long edge and quality of a preview."""
_WEB_QUALITY = (80, 90)
_WEB_NOISE = 0.5
"""Noise of a web-sized picture, as a share of a camera's: most of it was averaged away."""


@dataclass(frozen=True)
class Photograph:
    """A file, and what is known of it.

    Attributes:
        content: the JPEG.
        camera: whether it is a camera's; else it is web-sized.
        size: width and height as they are stored.
        orientation: 1 to 8, as its EXIF says.
        thumbnail: whether it has one, and what that shows.
        preview: whether there is a larger preview behind the picture.
    """

    content: bytes
    camera: bool
    size: tuple[int, int]
    orientation: int = 1
    thumbnail: Thumbnail = "none"
    preview: bool = False


def photograph(picture: Image.Image, camera: Camera, number: int, seed: int) -> Photograph:
    """The photograph that is made of a picture.

    Args:
        picture: upright RGB, of any size; it is enlarged or made smaller.
        camera: how.
        number: of the picture among its like; it decides what is drawn, with the seed.
        seed: from 0.

    Raises:
        CorpusError: the thumbnail is too large for the EXIF of a JPEG.
    """
    rng = np.random.default_rng([seed, number])
    if rng.random() < camera.web:
        return _of_the_web(picture, camera, rng)
    return _of_a_camera(picture, camera, number, rng)


def _of_the_web(picture: Image.Image, camera: Camera, rng: np.random.Generator) -> Photograph:
    """A smaller picture without any metadata."""
    scale = camera.web_edge / max(picture.size)
    width, height = (max(1, round(edge * scale)) for edge in picture.size)
    small = enlarged(picture, (width, height), _WEB_NOISE * camera.noise, rng)
    return Photograph(jpeg(small, _drawn(_WEB_QUALITY, rng)), False, small.size)


def _of_a_camera(
    picture: Image.Image, camera: Camera, number: int, rng: np.random.Generator
) -> Photograph:
    upright = _stands(picture, rng)
    held, kind = _held(upright, rng), _kind(camera, rng)
    ratio = _ratio(picture, camera.aspect)
    orientation = held
    if kind == "not turned":  # the program that turned the picture left its thumbnail as it was
        held, orientation = (3 if held == 1 else held), 1
    size = camera.size(ratio)
    if upright and orientation == 1:
        size = size[::-1]
    whole = framed(picture, 1 / ratio if upright else ratio)
    large = enlarged(stored(whole, orientation), size, camera.noise, rng)
    pictured = shown(large, kind, held)
    content = jpeg(large, _drawn(_QUALITY, rng))
    note = rng.bytes(_drawn(_NOTE, rng))
    small = None if pictured is None else thumbnail(pictured, camera)
    try:
        exif = exif_segment(Shot(size, orientation, number, note, small))
    except ValueError as error:
        raise CorpusError(
            f"a thumbnail of {camera.thumbnail} pixels is too large: {error}"
        ) from error
    preview = bool(rng.random() < camera.preview)
    content = _with_preview(content, exif, large) if preview else with_segments(content, exif)
    return Photograph(content, True, size, orientation, kind, preview)


def _stands(picture: Image.Image, rng: np.random.Generator) -> bool:
    """Whether the photograph is higher than wide."""
    drawn = bool(rng.random() < _SHARE_UPRIGHT)
    return drawn if picture.height == picture.width else picture.height > picture.width


def _ratio(picture: Image.Image, aspect: Aspect) -> float:
    if aspect != "nearest":
        return ASPECTS[aspect]
    own = max(picture.size) / min(picture.size)
    return min(ASPECTS.values(), key=lambda ratio: abs(np.log(own / ratio)))


def _held(upright: bool, rng: np.random.Generator) -> int:
    """The orientation that a camera writes."""
    values, shares = zip(*(_UPRIGHT if upright else _ACROSS), strict=True)
    return int(rng.choice(values, p=shares))


def _kind(camera: Camera, rng: np.random.Generator) -> Thumbnail:
    """Whether a file has a thumbnail, and what that shows."""
    drawn, stale = rng.random(), STALE[rng.integers(len(STALE))]
    if drawn < camera.absent:
        return "none"
    return stale if drawn < camera.absent + camera.stale else "true"


def _with_preview(content: bytes, exif: bytes, picture: Image.Image) -> bytes:
    """A camera's JPEG with a preview behind it, and the index that says so."""
    edge, quality = _PREVIEW
    scale = min(1.0, edge / max(picture.size))
    width, height = (max(1, round(side * scale)) for side in picture.size)
    preview = jpeg(picture.resize((width, height), Resampling.BOX, reducing_gap=2.0), quality)
    before = 2 + len(exif)
    without = len(with_segments(content, exif))
    # an index is as long as any other, whatever it says
    whole = without + len(index_segment(without, len(preview), before))
    index = index_segment(whole, len(preview), before)
    return with_segments(content, exif, index) + preview


def framed(picture: Image.Image, ratio: float) -> Image.Image:
    """The picture in the middle of one whose width / height is the ratio, its edges mirrored.

    So nothing of it is lost, and the square in the middle, which most towers look at, is its own.
    """
    width, height = picture.size
    across = max(width, round(height * ratio))
    down = max(height, round(width / ratio))
    left, top = (across - width) // 2, (down - height) // 2
    beside = ((top, down - height - top), (left, across - width - left), (0, 0))
    return Image.fromarray(np.pad(np.asarray(picture), beside, mode="symmetric"))


def _drawn(bounds: tuple[int, int], rng: np.random.Generator) -> int:
    """A whole number within bounds, both included."""
    return int(rng.integers(bounds[0], bounds[1] + 1))
