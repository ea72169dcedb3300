"""Thumbnails for files that have none, as a camera would have put them there.

Development photographs come without thumbnails; what a stage loses that reads thumbnails is
measured, and made good, on files that are given one. The picture itself is kept bit for bit.
"""

import struct
import zlib
from io import BytesIO

import PIL.Image

from corpora.decoding.bare import bare
from corpora.decoding.colours import rgb
from corpora.decoding.images import open_image
from corpora.decoding.sources import naming
from corpora.problems import CorpusError

QUALITY = 75
"""Of the JPEG file that a thumbnail is."""
_CAMERAS, _TOWERS = 160, 224
"""Pixels of the longer edge of nearly all EXIF thumbnails, and that a usual tower takes."""
_JPEG, _PNG = b"\xff\xd8", b"\x89PNG"
_MOST = 65_535 - 2 - 6  # bytes of EXIF in a JPEG file


def usual_long_side(edge: int) -> int:
    """The longer edge of thumbnails that are to a tower as a camera's are to one of 224 pixels."""
    return max(1, round(_CAMERAS * edge / _TOWERS))


def as_thumbnail(picture: PIL.Image.Image, long_side: int, quality: int = QUALITY) -> bytes:
    """A picture as the JPEG file of its thumbnail, whose longer edge has at most `long_side`."""
    small = rgb(picture)
    share = min(1.0, long_side / max(small.size))
    size = max(1, round(small.width * share)), max(1, round(small.height * share))
    small = small.resize(size, PIL.Image.Resampling.LANCZOS)
    stream = BytesIO()
    small.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def with_thumbnail(content: bytes, long_side: int, quality: int = QUALITY) -> bytes:
    """A file's bytes with an EXIF thumbnail in them; of its metadata the orientation is kept.

    JPEG and PNG files keep their picture as it is stored, others come as PNG.

    Args:
        content: the bytes of a file.
        long_side: pixels of the thumbnail's longer edge, if the picture has as many.
        quality: of the thumbnail's JPEG.

    Raises:
        CorpusError: the file can't be decoded, or a thumbnail of this size doesn't fit into it.
    """
    rest = bare(content) if content.startswith((_JPEG, _PNG)) else None
    with naming(content):
        if rest is None:
            picture, held = open_image(content), 1
            plain = _as_png(picture)
        else:
            with PIL.Image.open(BytesIO(rest.content), formats=("JPEG", "PNG")) as stored:
                stored.load()
                picture, held = rgb(stored), rest.orientation
            plain = rest.content
    thumbnail = as_thumbnail(picture, long_side, quality)
    block = exif_block(thumbnail, held)
    if plain.startswith(_JPEG):
        if len(block) > _MOST:
            raise CorpusError(f"a thumbnail of {len(thumbnail):,} bytes doesn't fit into a JPEG")
        segment = b"Exif\0\0" + block
        return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + plain[2:]
    chunk = b"eXIf" + block
    ends = 8 + 25  # of the signature and IHDR, after which metadata may stand
    whole = struct.pack(">I", len(block)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return plain[:ends] + whole + plain[ends:]


def exif_block(thumbnail: bytes, held: int = 1) -> bytes:
    """An EXIF block with nothing but an orientation and a thumbnail, from its byte order on."""
    first = struct.pack("<HHHII", 1, 0x112, 3, 1, held) + struct.pack("<I", 26)
    entries = ((0x103, 3, 6), (0x201, 4, 26 + 2 + 3 * 12 + 4), (0x202, 4, len(thumbnail)))
    second = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return (
        b"II*\0"
        + struct.pack("<I", 8)
        + first
        + struct.pack("<H", len(entries))
        + second
        + struct.pack("<I", 0)
        + thumbnail
    )


def _as_png(image: PIL.Image.Image) -> bytes:
    """A decoded picture as a PNG file without metadata."""
    stream = BytesIO()
    rgb(image).save(stream, "PNG")
    return stream.getvalue()
