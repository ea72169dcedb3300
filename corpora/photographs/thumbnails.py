"""The thumbnail in a camera's file: of its picture, or of what that was before it was edited."""

import io
from typing import Literal, TypeAlias

from PIL import Image
from PIL.Image import Resampling, Transpose

from corpora.decoding.orientation import TURNS
from corpora.photographs.camera import ASPECTS, Camera

Thumbnail: TypeAlias = Literal["none", "true", "another crop", "other tones", "not turned"]
"""Whether a file has a thumbnail, and if it is a stale one, what it shows."""

STALE: tuple[Thumbnail, ...] = ("another crop", "other tones", "not turned")
_BACK = {
    Transpose.ROTATE_90: Transpose.ROTATE_270,
    Transpose.ROTATE_270: Transpose.ROTATE_90,
}
_QUALITY = 85
_FRAME = ASPECTS["4:3"]


def shown(picture: Image.Image, kind: Thumbnail, held: int) -> Image.Image | None:
    """What the thumbnail is made of, given the picture as it is stored; None if there is none.

    A picture is edited after its thumbnail was made, so a stale one shows what is in the file no
    more. Here the picture has to stay, so the thumbnail shows another crop, or other tones.
    """
    if kind == "none":
        return None
    if kind == "not turned":
        return stored(picture, held)
    if kind == "another crop":
        width, height = picture.size
        return picture.crop((0, 0, width * 3 // 5, height * 3 // 5))
    if kind == "other tones":
        brightness = picture.getchannel(0).point([round(0.55 * level) for level in range(256)])
        grey = Image.new("L", picture.size, 128)
        return Image.merge("YCbCr", (brightness, grey, grey))
    return picture


def thumbnail(picture: Image.Image, camera: Camera) -> bytes:
    """The JPEG of a thumbnail: of the picture as it is stored, within the camera's box."""
    edge = camera.thumbnail
    short, long = sorted(picture.size)
    frame = (edge, round(edge / _FRAME))
    inside = (edge, min(frame[1], max(1, round(edge * short / long))))
    if picture.height > picture.width:
        frame, inside = frame[::-1], inside[::-1]
    small = picture.resize(inside, Resampling.BOX, reducing_gap=2.0)
    if camera.letterbox and inside != frame:
        boxed = Image.new("YCbCr", frame, (0, 128, 128))
        boxed.paste(small, ((frame[0] - inside[0]) // 2, (frame[1] - inside[1]) // 2))
        small = boxed
    return jpeg(small, _QUALITY)


def stored(upright: Image.Image, orientation: int) -> Image.Image:
    """An upright picture as a camera that was held so stores it."""
    turn = TURNS.get(orientation)
    return upright if turn is None else upright.transpose(_BACK.get(turn, turn))


def jpeg(picture: Image.Image, quality: int) -> bytes:
    """Baseline, with colour at half the resolution, as cameras write it."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return file.getvalue()
