"""What steps of both backends of transformers need: a picture's target, its colours, its levels."""

from typing import Any

import numpy as np
import PIL.Image
from torch import Tensor
from transformers.image_transforms import get_resize_output_image_size, get_size_with_aspect_ratio
from transformers.image_utils import get_image_size_for_max_height_width

SIZES = 1024  # of pictures whose targets are remembered


class NoStepsError(Exception):
    """Why a processor must be called as a whole."""


def looked_up(table: Tensor, levels: Tensor) -> Tensor:
    """What a table [3, 256] has for levels [n, 3, height, width], on the CPU, in this thread."""
    pixels = table.new_empty(levels.shape)
    for image, made in zip(levels.numpy(), pixels.numpy(), strict=True):
        for at, row in enumerate(table.numpy()):  # in a quarter of torch's time
            row.take(image[at], out=made[at], mode="clip")
    return pixels


def is_plain(image: PIL.Image.Image) -> bool:
    """Whether a processor begins with a picture as it is."""
    return image.mode == "RGB" and image.info.get("transparency") is None


def rgb(image: PIL.Image.Image, processor: Any) -> PIL.Image.Image:
    """A picture as its processor begins with it: one with a transparent colour on white."""
    if is_plain(image):
        return image
    pixels = processor.process_image(image, do_convert_rgb=processor.do_convert_rgb)
    return PIL.Image.fromarray(np.ascontiguousarray(np.moveaxis(np.asarray(pixels), 0, -1)))


def target(size: Any, height: int, width: int) -> tuple[int, int]:
    """The (height, width) that a backend resizes this one to, by the transformers' own rules."""
    shape = height, width
    found: tuple[int, int]
    if size.shortest_edge and size.longest_edge:
        found = get_size_with_aspect_ratio(shape, size.shortest_edge, size.longest_edge)
    elif size.shortest_edge:
        # they ask an array for its shape, so one without memory of its own
        asked = np.broadcast_to(np.uint8(0), (3, *shape))
        found = get_resize_output_image_size(
            asked, size.shortest_edge, default_to_square=False, input_data_format="channels_first"
        )
    elif size.max_height and size.max_width:
        found = get_image_size_for_max_height_width(shape, size.max_height, size.max_width)
    elif size.height and size.width:
        found = (size.height, size.width)
    else:
        raise NoStepsError(f"it resizes to {size}, which its backend doesn't know")
    return found
