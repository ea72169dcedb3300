"""JPEG files of every kind that is told apart, made by Pillow: imported by tests."""

import io
import struct

import numpy as np
from PIL import Image


def picture(width=90, height=61, seed=0) -> Image.Image:
    few = np.random.default_rng(seed).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    return Image.fromarray(few).resize((width, height), Image.Resampling.BICUBIC)


def jpeg(image, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", **options)
    return stream.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x112] = orientation
    return exif


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def with_segment(content: bytes, marker: int, body: bytes) -> bytes:
    return content[:2] + segment(marker, body) + content[2:]


PLAIN = jpeg(picture())
XMP = b"http://ns.adobe.com/xap/1.0/\0"
TAKEN = {
    **{
        f"{layout}, {'progressive' if progressive else 'baseline'}": jpeg(
            picture(), subsampling=layout, progressive=progressive
        )
        for layout in ("4:4:4", "4:2:2", "4:2:0")
        for progressive in (False, True)
    },
    **{f"orientation {n}": jpeg(picture(), exif=turned(n)) for n in range(10)},
    "grey": jpeg(picture().convert("L")),
    "RGB": jpeg(picture(), keep_rgb=True, quality=100),
    "coarse": jpeg(picture(), quality=5),
    "one pixel": jpeg(picture(1, 1)),
    "long": jpeg(picture(300, 7)),
    "larger": jpeg(picture(500, 375), quality=95),
    "restarts": jpeg(picture(), restart_marker_blocks=3),
    "profile and comment": jpeg(picture(), icc_profile=b"p" * 900, comment=b"c"),
    "a long head": jpeg(picture(), icc_profile=b"p" * 20_000),
    "turned by XMP": with_segment(PLAIN, 0xE1, XMP + b'<x tiff:Orientation="6">'),
    "something behind": PLAIN + b"something" * 99,
}
LEFT = {
    "CMYK": jpeg(picture().convert("CMYK")),
    "a head of 70 kB": jpeg(picture(), icc_profile=b"p" * 70_000),
    "EXIF twice": with_segment(TAKEN["orientation 6"], 0xE1, b"Exif\0\0" + turned(3).tobytes()),
    "broken JFIF": with_segment(PLAIN, 0xE0, b"JFIF\0"),
    "broken tables": with_segment(PLAIN, 0xDB, bytes(60)),
    "cut": PLAIN[:-30],
    "cut in its head": PLAIN[:100],
    "a byte before a segment": PLAIN[:2] + b"\0" + PLAIN[2:],
    "no JPEG": b"\x89PNG\r\n\x1a\n",
    "nothing": b"",
}
