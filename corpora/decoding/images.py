"""The one home of decoding: from a file, bytes or a decoded image to upright RGB.

Whatever opens a picture does it by these steps: a corpus's column `image`, the pass that finds
broken files (`corpora.column`), and search. What one image may cost is bounded: an ordinary file,
`MAX_PIXELS`, and of large pictures one at a time in a process.
"""

import itertools
import threading
from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from io import BytesIO
from typing import BinaryIO

import PIL.Image
from PIL.JpegImagePlugin import JpegImageFile

from corpora.decoding.bare import Bare, bare
from corpora.decoding.colours import rgb
from corpora.decoding.jpeg.small import small_jpeg
from corpora.decoding.orientation import TURNS, in_exif, upright
from corpora.decoding.raw import RAW_SUFFIXES, is_raw, raw_is_read, raw_preview
from corpora.decoding.reads import Reads, Tally
from corpora.decoding.sizes import LARGE, divisor_of, draft
from corpora.decoding.sources import Source, naming, stream_of, suffix_of
from corpora.decoding.thumbnails import embeds_any, thumbnail_of
from corpora.decoding.watching import opening
from corpora.problems import CorpusError

HeifImageFile: Callable[[BinaryIO], PIL.Image.Image] | None = None
"""What opens HEIC files, if it is installed."""
with suppress(ImportError):
    from pillow_heif import as_plugin

    HeifImageFile = as_plugin.HeifImageFile

# Of a picture that is decoded as a whole: where Pillow begins to warn, 16,384 x 5,461. JPEGs that
# aren't progressive may have four times as many; they are then decoded at half their size.
MAX_PIXELS = 89_478_485
# WebP holds four copies of a picture while it decodes, AVIF, HEIF and JPEG 2000 up to three.
MAX_PIXELS_OF = {"WEBP": 48_000_000, "AVIF": 64_000_000, "HEIF": 64_000_000, "JPEG2000": 64_000_000}
# What photographs come in. Pillow knows more, but some of it runs programs (EPS), unpacks whatever
# it is given (FITS) or is no picture.
FORMATS = (
    *("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG2000", "PCX", "PNG", "PPM", "PSD", "QOI", "SGI"),
    *("TGA", "TIFF", "WEBP"),
)
INSTALL_HEIF = "pip install 'clip-cascade[heif]'"

_ONE_AT_A_TIME = threading.Lock()
_MAX_REREAD = 256_000_000  # bytes of a file that is read once more without its metadata
_HEIF_BRANDS = frozenset(
    {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1"}
)


@dataclass(frozen=True)
class _Asked:
    """What is asked of a file: see `open_image`."""

    at_least: int | None
    reads: Reads
    tally: Tally | None

    def embedded(self, image: PIL.Image.Image, stream: BinaryIO) -> PIL.Image.Image | None:
        """The picture embedded in an opened file, if one is asked for and will do."""
        if self.reads != "thumbnail" or self.at_least is None:
            return None
        return thumbnail_of(image, stream, self.at_least, self.tally)

    def small(self, stream: BinaryIO) -> PIL.Image.Image | None:
        """The picture in a small JPEG file, if a decoder of these is installed."""
        embedded = self.reads == "thumbnail" and self.at_least is not None
        picture = small_jpeg(stream, self.at_least, embedded)
        if picture is not None and embedded and self.tally is not None:
            self.tally.add("absent")
        return picture


@opening
def open_image(
    image: PIL.Image.Image | Source,
    at_least: int | None = None,
    reads: Reads = "full",
    tally: Tally | None = None,
) -> PIL.Image.Image:
    """Decode an image to RGB, turned upright as its EXIF orientation says.

    Broken metadata costs nothing: if the orientation can't be read the picture stays as stored, and
    what else keeps Pillow from opening the file is left out. Of several pictures in a file the
    first is taken. Transparency is dropped as CLIP's processor drops it; 16-bit grey is scaled to 8
    bits, where a plain `convert` would turn it white, and so are floating point values in [0, 1].

    Args:
        image: a path, the bytes of a file, an open file that can be searched, a decoded image, or
            what a corpus with undecoded images gives ({"path": …, "bytes": …}).
        at_least: what is wanted of the shorter edge, in pixels. A file with a picture twice as
            large or more comes at 1/2, 1/4, … of its size, still at least so large, for a fraction
            of the time and memory.
        reads: "thumbnail": the picture embedded in the file comes in place of the file's own,
            if it shows the same and `reads.enough(at_least)` of it is there; see `thumbnails`. Of
            JPEG files and camera's previews in them only the head, and the preview, are read then,
            so that what is broken behind them isn't noticed. Otherwise, and where nothing is said
            of `at_least`, the file's own picture comes as for the other ways to read; which of
            those it is, is said by `at_least` alone: see `reads.wanted`.
        tally: counts what came of looking for a thumbnail.

    Raises:
        CorpusError: the image can't be decoded, isn't an ordinary file or has too many pixels.
    """
    asked = _Asked(at_least, reads, tally)
    with naming(image):
        if isinstance(image, PIL.Image.Image):
            return rgb(upright(_loaded(image)))
        with stream_of(image) as stream:
            if suffix_of(image) in RAW_SUFFIXES or is_raw(_start(stream)):
                return _of_camera(stream, asked)
            return _decoded(stream, asked)


def has_thumbnail(image: Source) -> bool:
    """Whether a file says that there is a smaller picture in it; only its head is read.

    Args:
        image: as `open_image` takes it, but not decoded.

    Returns:
        False also of a file that can't be opened.
    """
    try:
        with stream_of(image) as stream:
            return suffix_of(image) in RAW_SUFFIXES or embeds_any(_opened(stream))
    except Exception:  # whatever is wrong, `open_image` says it
        return False


def any_has_thumbnail(images: Iterable[Source], most: int = 256) -> bool:
    """Whether any of the first images has a smaller picture in its file: see `has_thumbnail`."""
    return any(map(has_thumbnail, itertools.islice(images, most)))


def _decoded(stream: BinaryIO, asked: _Asked) -> PIL.Image.Image:
    """The picture in a file; if its metadata is in the way, without that."""
    small = asked.small(stream)
    if small is not None:
        return small
    try:
        with _opened(stream) as image:
            return asked.embedded(image, stream) or _whole(image, asked.at_least)
    except CorpusError:
        raise
    except Exception:
        stream.seek(0)
        content = stream.read(_MAX_REREAD + 1)
        rest = bare(content) if len(content) <= _MAX_REREAD else None
        if rest is None:
            raise
        try:
            return _without_metadata(rest, asked.at_least)
        except Exception:  # it wasn't the metadata: what was wrong at first is what counts
            rest = None
        raise


def _without_metadata(rest: Bare, at_least: int | None) -> PIL.Image.Image:
    with _opened(BytesIO(rest.content)) as image:
        picture = _whole(image, at_least)
    turn = TURNS.get(rest.orientation)
    return picture if turn is None else picture.transpose(turn)


def _of_camera(stream: BinaryIO, asked: _Asked) -> PIL.Image.Image:
    """The picture in a camera's raw file, which is held as a whole while it is looked for.

    It is an embedded one, however the file is to be read, and only scaled down here.
    """
    with _ONE_AT_A_TIME:
        preview = raw_preview(stream)
    if asked.tally is not None and asked.reads == "thumbnail":
        asked.tally.add("used" if preview.embedded else "absent")
    asked = replace(asked, reads="scaled")
    if isinstance(preview.picture, bytes):
        with BytesIO(preview.picture) as jpeg:
            said = in_exif(_opened(jpeg).info.get("exif"))
            jpeg.seek(0)
            picture = _decoded(jpeg, asked)
    else:
        said, picture = None, _whole(preview.picture, asked.at_least)
    turn = None if said else TURNS.get(preview.orientation)
    return picture if turn is None else picture.transpose(turn)


def _start(stream: BinaryIO) -> bytes:
    start = stream.read(16)
    stream.seek(0)
    return start


def _opened(stream: BinaryIO) -> PIL.Image.Image:
    """The file's picture, not yet decoded."""
    start = _start(stream)
    if start.startswith(b"\xff\xd8\xff"):
        # Not by PIL.Image.open, which goes on to look for further pictures in the metadata.
        return JpegImageFile(stream)
    if start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS:
        if HeifImageFile is None:
            raise CorpusError(f"is HEIC, which needs a decoder of its own: {INSTALL_HEIF}")
        return HeifImageFile(stream)
    return PIL.Image.open(stream, formats=_formats())


def kinds_read() -> frozenset[str]:
    """What files are read here: Pillow's formats, and HEIC and raw if their decoders are there."""
    heic = () if HeifImageFile is None else ("HEIC",)
    return frozenset((*_formats(), *heic, *(("raw",) if raw_is_read() else ())))


def _formats() -> tuple[str, ...]:
    PIL.Image.init()
    return tuple(name for name in FORMATS if name in PIL.Image.OPEN)


def _whole(image: PIL.Image.Image, at_least: int | None) -> PIL.Image.Image:
    """Decode an opened file: upright, RGB, and scaled down as `open_image` says."""
    stored = image.width * image.height
    bound = MAX_PIXELS_OF.get(image.format or "", MAX_PIXELS)
    if image.format == "JPEG":
        divisor = divisor_of(image.size, at_least)
        if not image.info.get("progressive"):  # which is held as a whole, however it is decoded
            divisor = max(divisor, 2) if stored > bound else divisor
            bound *= 4
        if divisor > 1:
            draft(image, min(divisor, 8))
    if stored > bound:
        raise CorpusError(
            f"has {stored / 1e6:,.0f} million pixels; at most {bound / 1e6:,.0f} are decoded of a "
            f"{image.format} file"
        )
    with _ONE_AT_A_TIME if image.width * image.height > LARGE else nullcontext():
        picture = rgb(upright(_loaded(image)))
        divisor = divisor_of(picture.size, at_least)
        return picture.reduce(divisor) if divisor > 1 else picture


def _loaded(image: PIL.Image.Image) -> PIL.Image.Image:
    image.load()
    return image
