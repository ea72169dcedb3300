"""The one home of decoding: from a file, bytes or a decoded image to upright RGB.

Also finds the images of a corpus that can't be decoded, in one pass before long work starts, so
that a broken file is skipped and named and doesn't end a run.
"""

from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import PIL.Image
import PIL.ImageOps
from datasets import Dataset, Image

from corpora.problems import CorpusError

AT_ONCE = 64


def open_image(image: PIL.Image.Image | str | Path | bytes | dict) -> PIL.Image.Image:
    """Decode an image to RGB, turned upright as its EXIF orientation says.

    Takes a path, the bytes of a file, a decoded image, or what a corpus with undecoded images gives
    ({"path": …, "bytes": …}). Transparency is dropped as CLIP's processor drops it; 16-bit grey is
    scaled to 8 bits, where a plain `convert` would turn it white.

    Raises CorpusError if the image can't be decoded.
    """
    try:
        if isinstance(image, PIL.Image.Image):
            return _rgb(image)
        with _opened(image) as decoded:
            return _rgb(decoded)
    # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, DecompressionBombError
    except Exception as error:
        raise CorpusError(f"{_name(image)}: can't be decoded ({error})") from error


def drop_unreadable(corpus: Dataset) -> tuple[Dataset, list[str]]:
    """Decode each image once; return the corpus without those that fail, and their keys.

    The images are neither kept nor encoded again, and the corpus that is returned is a selection
    of the rows of the one given. JPEG files are decoded at an eighth of their size: all of the file
    is read, so that a truncated one is found, in a fraction of the time.
    """
    undecoded = corpus.select_columns("image").cast_column("image", Image(decode=False))
    readable: list[bool] = []
    with ThreadPoolExecutor() as pool:
        for batch in undecoded.iter(AT_ONCE):
            readable += pool.map(_readable, batch["image"])
    if all(readable):
        return corpus, []
    keys = [key for key, fine in zip(corpus["key"], readable, strict=True) if not fine]
    return corpus.select([row for row, fine in enumerate(readable) if fine]), keys


def _readable(image: dict | None) -> bool:
    try:
        with _opened(image) as decoded:
            decoded.draft(None, tuple(max(1, side // 8) for side in decoded.size))
            decoded.load()
    except Exception:  # as in open_image: any of several, and none may end the pass
        return False
    return True


def _opened(image: str | Path | bytes | dict) -> PIL.Image.Image:
    if isinstance(image, dict):
        image = image["bytes"] if image.get("bytes") is not None else image["path"]
    return PIL.Image.open(BytesIO(image) if isinstance(image, bytes) else image)


def _rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    image.load()
    if image.getexif().get(PIL.Image.ExifTags.Base.Orientation, 1) != 1:
        image = PIL.ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16-bit files come as I;16, from older Pillow as I
        image = image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB, Pillow warns
    return image if image.mode == "RGB" else image.convert("RGB")


def _name(image: object) -> str:
    if isinstance(image, dict):
        image = image.get("path") or image.get("bytes")
    return f"{len(image):,} bytes" if isinstance(image, bytes) else str(image)
