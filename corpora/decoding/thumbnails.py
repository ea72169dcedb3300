"""A picture's thumbnail instead of the picture, where it is large enough and shows the same.

A thumbnail may be absent, broken, too small, in another shape (its picture was cropped since), or
letterboxed: cameras put their 3:2 pictures into 4:3 thumbnails, with black bars, which are cut off.
One whose picture was changed within the same shape can't be told by itself; who has both asks
`shows_same`.
"""

from collections.abc import Iterator
from io import BytesIO
from typing import BinaryIO

import numpy as np
import PIL.Image
from PIL.JpegImagePlugin import JpegImageFile

from corpora.decoding.colours import rgb
from corpora.decoding.embedded import exif_thumbnail, mpf_previews
from corpora.decoding.orientation import TURNS, in_exif, orientation, orientation_in
from corpora.decoding.reads import Outcome, Tally, enough
from corpora.decoding.sizes import divisor_of, draft

MAX_PIXELS = 16_000_000
"""Of an embedded picture."""

_WIDEST_BAR = 0.2  # of an edge, each of two: 16:9 in 4:3 has 0.125
_BLACK = 8.0  # of 255, the mean of a bar
_CELLS = 8  # along each edge, that two pictures are compared in
_APART, _CELL_APART = 5.0, 24.0  # of 255: the mean over cells, and one cell


class _UnfitError(Exception):
    """An embedded picture that can't stand for its file."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome


def thumbnail_of(
    image: PIL.Image.Image, stream: BinaryIO, at_least: int, tally: Tally | None = None
) -> PIL.Image.Image | None:
    """The embedded picture of an opened file, upright RGB; None if it has none that will do.

    Of a JPEG file no more is read than its head, and of a preview its own bytes.

    Args:
        image: the file's picture, not decoded.
        stream: the file.
        at_least: pixels wanted of the shorter edge; of a thumbnail `enough` of them do.
        tally: counts what came of it.
    """
    if image.format == "HEIF":
        found, outcome = _of_heif(image, at_least)
    else:
        found, outcome = _of_exif(image, stream, at_least)
    if tally is not None:
        tally.add(outcome)
    return found


def embeds_any(image: PIL.Image.Image) -> bool:
    """Whether an opened file says that there is a smaller picture in it, of whatever use."""
    return (
        exif_thumbnail(image.info.get("exif")) is not None
        or bool(image.format == "HEIF" and image.info.get("thumbnails"))
        or any(True for _ in mpf_previews(image.info.get("mp"), image.info.get("mpoffset")))
    )


def shows_same(thumbnail: PIL.Image.Image, picture: PIL.Image.Image) -> bool:
    """Whether a thumbnail shows what its picture does, as far as coarse means of colour say.

    Both are upright RGB; their means over 8 x 8 cells are compared. False: the thumbnail is stale.
    """
    apart = np.abs(_means(thumbnail) - _means(picture))
    return bool(apart.mean() <= _APART and apart.mean(axis=2).max() <= _CELL_APART)


def _means(picture: PIL.Image.Image) -> np.ndarray:
    """Means of colour over the cells, float [8, 8, 3]."""
    small = picture.convert("RGB").resize((_CELLS, _CELLS), PIL.Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float64)


def _of_heif(image: PIL.Image.Image, at_least: int) -> tuple[PIL.Image.Image | None, Outcome]:
    """The thumbnail of a HEIC file, which its decoder holds against the picture's shape."""
    short, wanted = min(image.size), enough(at_least)
    least = -(-image.width * wanted // short), -(-image.height * wanted // short)
    if short <= wanted or image.draft(None, least) is None:
        return None, "too small" if image.info.get("thumbnails") else "absent"
    image.load()
    return rgb(image), "used"


def _of_exif(
    image: PIL.Image.Image, stream: BinaryIO, at_least: int
) -> tuple[PIL.Image.Image | None, Outcome]:
    """The first embedded picture that will do, or why the first of them doesn't."""
    first: Outcome | None = None
    for content, turned in _candidates(image, stream):
        try:
            return _decoded(content, turned, image, at_least), "used"
        except _UnfitError as unfit:
            first = first or unfit.outcome
        except Exception:  # Pillow's decoders raise OSError, SyntaxError, ValueError and more
            first = first or "broken"
    return None, first or "absent"


def _candidates(image: PIL.Image.Image, stream: BinaryIO) -> Iterator[tuple[bytes, int | None]]:
    """Embedded files, the nearest first, and the orientation that their directory gives them."""
    thumbnail = exif_thumbnail(image.info.get("exif"))
    if thumbnail is not None:
        yield thumbnail.content, orientation_in(thumbnail.tiff, thumbnail.directory)
    if image.format != "JPEG":
        return
    for place in mpf_previews(image.info.get("mp"), image.info.get("mpoffset")):
        stream.seek(place.start)
        yield stream.read(place.length), None


def _decoded(
    content: bytes, turned: int | None, image: PIL.Image.Image, at_least: int
) -> PIL.Image.Image:
    """An embedded JPEG file, cut to the shape of the file's picture and turned as that is.

    Raises:
        _UnfitError: it shows something else, or too little of it.
        Exception: whatever Pillow raises.
    """
    with BytesIO(content) as stream, JpegImageFile(stream) as small:
        held = orientation(image)
        said = (turned, in_exif(small.info.get("exif")))
        if any(own not in (None, held) for own in said):
            raise _UnfitError("other shape")
        across, down = small.size
        if across > image.width or down > image.height or across * down > MAX_PIXELS:
            raise _UnfitError("other shape")
        box = _content_box(small.size, image.size)
        if min(box[2] - box[0], box[3] - box[1]) < enough(at_least):
            raise _UnfitError("too small")
        bars = box != (0, 0, *small.size)
        if not bars:
            draft(small, min(8, divisor_of(small.size, at_least)))
        small.load()
        picture = rgb(small)
    if bars:
        if not _has_black_bars(picture, box):
            raise _UnfitError("other shape")
        picture = picture.crop(box)
    turn = TURNS.get(held)
    picture = picture if turn is None else picture.transpose(turn)
    picture.info = {}  # else it would be turned again when it's opened as a picture
    return picture


def _content_box(small: tuple[int, int], whole: tuple[int, int]) -> tuple[int, int, int, int]:
    """The middle of a thumbnail that has its picture's shape: left, top, right, bottom.

    Within a pixel, or 1.5 % of the edge, a shape is taken for the same.

    Raises:
        _UnfitError: the shapes are too far apart for bars.
    """
    width, height = small
    bars = (
        (width - min(width, height * whole[0] / whole[1])) / 2,
        (height - min(height, width * whole[1] / whole[0])) / 2,
    )
    edges = []
    for edge, bar in zip(small, bars, strict=True):
        if bar > _WIDEST_BAR * edge:
            raise _UnfitError("other shape")
        edges.append(0 if 2 * bar <= max(1.0, 0.015 * edge) else int(np.ceil(bar)))
    across, down = edges
    return across, down, width - across, height - down


def _has_black_bars(picture: PIL.Image.Image, box: tuple[int, int, int, int]) -> bool:
    """Whether nothing but black lies outside of a box, apart from its very edge."""
    left, top, right, bottom = box
    pixels = np.asarray(picture, dtype=np.float64)
    outside = (
        pixels[: max(0, top - 1)],
        pixels[bottom + 1 :],
        pixels[:, : max(0, left - 1)],
        pixels[:, right + 1 :],
    )
    bars = [bar for bar in outside if bar.size]
    return bool(bars) and all(bar.mean() <= _BLACK for bar in bars)
