"""Camera raw files: the picture that the camera put into them to look at.

It is the camera's own rendering, has thousands of pixels, and is there in a tenth of the time that
developing the file takes. Only a file without one, or with a small one, is developed, at half its
size. Needs rawpy (the extra `raw`).
"""

from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from typing import BinaryIO

import numpy as np
import PIL.Image

from corpora.problems import CorpusError

INSTALL_RAW = "pip install 'clip-cascade[raw]'"
RAW_SUFFIXES = frozenset(
    {
        *(".3fr", ".arw", ".cr2", ".cr3", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos", ".mrw"),
        *(".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".rwl", ".sr2", ".srf", ".srw"),
        ".x3f",
    }
)

_SMALL = 640  # pixels of the longer edge; smaller previews are for the camera's own screen
_MAX_BYTES = 512_000_000
_MAX_PIXELS = 300_000_000  # of the sensor; a quarter of them is held
_ORIENTATIONS = {0: 1, 3: 3, 5: 8, 6: 6}  # of LibRaw's `flip`, as EXIF counts them


@dataclass(frozen=True)
class Preview:
    """A JPEG file or a picture, and how it is to be turned (1 to 8) if the JPEG doesn't say it.

    `embedded`: it lay in the file; else it was developed.
    """

    picture: bytes | PIL.Image.Image
    orientation: int = 1
    embedded: bool = True


def raw_is_read() -> bool:
    """Whether rawpy is installed."""
    return find_spec("rawpy") is not None


def is_raw(start: bytes) -> bool:
    """Whether a file is a raw file by its first 16 bytes, of those kinds that can be told so.

    Others (NEF, ARW, DNG, PEF) begin like any TIFF file, and are told by their names.
    """
    return (
        start.startswith((b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb"))
        or start[:10] == b"II*\0\x10\0\0\0CR"
        or start[4:12] == b"ftypcrx "
    )


def raw_preview(stream: BinaryIO) -> Preview:
    """The picture in a raw file.

    Raises:
        CorpusError: rawpy isn't installed, or the file is too large.
        rawpy.LibRawError: it can't be read.
    """
    if not raw_is_read():
        raise CorpusError(f"is a camera raw file, which needs a decoder of its own: {INSTALL_RAW}")
    import rawpy

    size = stream.seek(0, 2)
    stream.seek(0)
    if size > _MAX_BYTES:
        raise CorpusError(f"has {size / 1e6:,.0f} MB; at most {_MAX_BYTES / 1e6:,.0f} are read")
    with rawpy.imread(stream) as raw:
        turned = _ORIENTATIONS.get(raw.sizes.flip, 1)
        try:
            thumbnail = raw.extract_thumb()
        except (rawpy.LibRawNoThumbnailError, rawpy.LibRawUnsupportedThumbnailError):
            thumbnail = None
        picture = None if thumbnail is None else thumbnail.data
        if isinstance(picture, bytes) and _longer_edge(picture) >= _SMALL:
            return Preview(picture, turned)
        if isinstance(picture, np.ndarray) and max(picture.shape[:2]) >= _SMALL:
            return Preview(PIL.Image.fromarray(picture), turned)
        pixels = raw.sizes.raw_width * raw.sizes.raw_height
        if pixels > _MAX_PIXELS:
            raise CorpusError(f"has {pixels / 1e6:,.0f} million pixels and no picture to look at")
        developed = raw.postprocess(half_size=True, use_camera_wb=True, output_bps=8)
        return Preview(PIL.Image.fromarray(developed), embedded=False)


def _longer_edge(jpeg: bytes) -> int:
    """Pixels of a JPEG's longer edge; 0 if it is none."""
    try:
        with PIL.Image.open(BytesIO(jpeg), formats=("JPEG",)) as image:
            return max(image.size)
    except Exception:  # of whatever Pillow makes of a broken one
        return 0
