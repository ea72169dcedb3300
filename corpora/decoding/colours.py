"""From any of Pillow's modes to RGB, as CLIP's processors have it."""

from typing import cast

import PIL.Image


def rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """The picture as RGB, itself if it is; see `open_image`."""
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
