"""The one home of decoding: from a file, bytes or a decoded image to upright RGB.

Whatever opens a picture does it by these steps: a corpus's column `image`, the pass that finds
broken files (`corpora.column`), and search. What one image may cost is bounded: an ordinary file,
`MAX_PIXELS`, and of large pictures one at a time in a process.
"""

import os
import threading
from collections.abc import Callable
from contextlib import nullcontext, suppress
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, cast

import PIL.Image
from PIL.JpegImagePlugin import JpegImageFile

from corpora.decoding.bare import Bare, bare
from corpora.decoding.files import open_regular
from corpora.decoding.orientation import TURNS, in_exif, upright
from corpora.decoding.raw import RAW_SUFFIXES, is_raw, raw_is_read, raw_preview
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

_LARGE = 4_000_000  # pixels; pictures above are decoded one at a time
_ONE_AT_A_TIME = threading.Lock()
_MAX_REREAD = 256_000_000  # bytes of a file that is read once more without its metadata
_HEIF_BRANDS = frozenset(
    {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1"}
)


@opening
def open_image(
    image: PIL.Image.Image | str | Path | bytes | dict[str, Any], at_least: int | None = None
) -> PIL.Image.Image:
    """Decode an image to RGB, turned upright as its EXIF orientation says.

    Broken metadata costs nothing: if the orientation can't be read the picture stays as stored, and
    what else keeps Pillow from opening the file is left out. Of several pictures in a file the
    first is taken. Transparency is dropped as CLIP's processor drops it; 16-bit grey is scaled to 8
    bits, where a plain `convert` would turn it white, and so are floating point values in [0, 1].

    Args:
        image: a path, the bytes of a file, a decoded image, or what a corpus with undecoded images
            gives ({"path": …, "bytes": …}).
        at_least: what is wanted of the shorter edge, in pixels. A file with a picture twice as
            large or more comes at 1/2, 1/4, … of its size, still at least so large, for a fraction
            of the time and memory.

    Raises:
        CorpusError: the image can't be decoded, isn't an ordinary file or has too many pixels.
    """
    name = _name(image)
    try:
        if isinstance(image, PIL.Image.Image):
            return _rgb(upright(_loaded(image)))
        suffix = _suffix(image)
        content = _content(image) if isinstance(image, dict) else image
        with BytesIO(content) if isinstance(content, bytes) else open_regular(content) as stream:
            if suffix in RAW_SUFFIXES or is_raw(_start(stream)):
                return _of_camera(stream, at_least)
            return _decoded(stream, at_least)
    except CorpusError as error:
        reason = str(error)
        named = reason if reason.startswith(name) else f"{name}: {reason}"
        raise CorpusError(named) from error
    except OSError as error:
        if error.errno is None:
            raise CorpusError(_undecoded(name, error)) from error
        raise CorpusError(f"{name}: can't be opened ({error.strerror})") from error
    # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, MemoryError and more.
    except Exception as error:
        raise CorpusError(_undecoded(name, error)) from error


def _undecoded(name: str, error: Exception) -> str:
    if isinstance(error, PIL.UnidentifiedImageError):  # whose message names an object in memory
        return f"{name}: can't be decoded (it is no picture of a kind that is read here)"
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return f"{name}: can't be decoded ({reason})"


def _suffix(image: object) -> str:
    """That of the file's name, if there is one, in small letters."""
    name = image.get("path") if isinstance(image, dict) else image
    return os.path.splitext(name)[1].lower() if isinstance(name, str | Path) else ""


def _content(row: dict[str, Any]) -> bytes | str:
    """What holds the picture: the bytes if they are there, else the path of the file."""
    content: bytes | str = row["bytes"] if row.get("bytes") is not None else row["path"]
    return content


def _decoded(stream: BinaryIO, at_least: int | None) -> PIL.Image.Image:
    """The picture in a file; if its metadata is in the way, without that."""
    try:
        with _opened(stream) as image:
            return _whole(image, at_least)
    except CorpusError:
        raise
    except Exception:
        stream.seek(0)
        content = stream.read(_MAX_REREAD + 1)
        rest = bare(content) if len(content) <= _MAX_REREAD else None
        if rest is None:
            raise
        try:
            return _without_metadata(rest, at_least)
        except Exception:  # it wasn't the metadata: what was wrong at first is what counts
            rest = None
        raise


def _without_metadata(rest: Bare, at_least: int | None) -> PIL.Image.Image:
    with _opened(BytesIO(rest.content)) as image:
        picture = _whole(image, at_least)
    turn = TURNS.get(rest.orientation)
    return picture if turn is None else picture.transpose(turn)


def _of_camera(stream: BinaryIO, at_least: int | None) -> PIL.Image.Image:
    """The picture in a camera's raw file, which is held as a whole while it is looked for."""
    with _ONE_AT_A_TIME:
        preview = raw_preview(stream)
    if isinstance(preview.picture, bytes):
        with BytesIO(preview.picture) as jpeg:
            said = in_exif(_opened(jpeg).info.get("exif"))
            jpeg.seek(0)
            picture = _decoded(jpeg, at_least)
    else:
        said, picture = None, _whole(preview.picture, at_least)
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
        divisor = _divisor(image.size, at_least)
        if not image.info.get("progressive"):  # which is held as a whole, however it is decoded
            divisor = max(divisor, 2) if stored > bound else divisor
            bound *= 4
        if divisor > 1:
            _draft(image, min(divisor, 8))
    if stored > bound:
        raise CorpusError(
            f"has {stored / 1e6:,.0f} million pixels; at most {bound / 1e6:,.0f} are decoded of a "
            f"{image.format} file"
        )
    with _ONE_AT_A_TIME if image.width * image.height > _LARGE else nullcontext():
        picture = _rgb(upright(_loaded(image)))
        divisor = _divisor(picture.size, at_least)
        return picture.reduce(divisor) if divisor > 1 else picture


def _divisor(size: tuple[int, int], at_least: int | None) -> int:
    """The power of two by which a picture can be divided and its shorter edge still suffice."""
    if at_least is None:
        return 1
    return 1 << max(0, (min(size) // max(1, at_least)).bit_length() - 1)


def _draft(image: PIL.Image.Image, divisor: int) -> None:
    """Have a JPEG decoded at 1/2, 1/4 or 1/8: in the cosine transform, with a part of the work."""
    image.draft(None, (max(1, image.width // divisor), max(1, image.height // divisor)))


def _loaded(image: PIL.Image.Image) -> PIL.Image.Image:
    image.load()
    return image


def _rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    if image.mode.startswith("I"):  # 16-bit files come as I;16, from older Pillow as I
        image = image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    if image.mode == "F":
        image = _eight_bits(image)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB, Pillow warns
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(image: PIL.Image.Image) -> PIL.Image.Image:
    """Floating point grey as L: values in [0, 1] are scaled, others are taken for 0 to 255."""
    lowest, highest = cast(tuple[float, float], image.getextrema())  # pairs only of several bands
    scale = 255 if lowest >= 0 and 0 < highest <= 1 else 1
    return image.point(lambda value: value * scale).convert("L")


def _name(image: object) -> str:
    if isinstance(image, dict):
        image = image.get("path") or image.get("bytes")
    return f"{len(image):,} bytes" if isinstance(image, bytes) else str(image)
