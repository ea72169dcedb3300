"""A picture's pixels as a tensor: its own memory where that can be had, or a copy of it.

Steps resample these; what a picture has in Pillow's memory needn't be copied for it.
"""

import numpy as np
import PIL.Image
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

COPIED = 1 << 16
"""Pixels of a picture below which a copy is sooner made than a view."""


def view(image: PIL.Image.Image) -> Tensor | None:
    """A picture's pixels, uint8 [3 or 4, height, width], where they are in one piece."""
    if image.width * image.height < COPIED:
        return copied(image)
    return memory(image)


def whole(image: PIL.Image.Image) -> Tensor:
    """A picture's pixels, uint8 [3 or 4, height, width], copied if need be."""
    pixels = view(image)
    return copied(image) if pixels is None else pixels


def memory(image: PIL.Image.Image) -> Tensor | None:
    """A picture's own memory, uint8 [4, height, width] with channels side by side.

    None if it isn't in one piece, as above 4 megapixels. The fourth channel means nothing.
    """
    import pyarrow  # here, since it takes longer to import than to copy many small pictures

    try:
        own = pyarrow.array(image)
    except ValueError:
        return None
    pixels: Tensor = from_dlpack(own.flatten())
    return pixels.view(image.height, image.width, -1).movedim(-1, 0)


def copied(image: PIL.Image.Image) -> Tensor:
    """A picture's pixels, uint8 [3, height, width] with channels side by side, in other memory."""
    return torch.from_numpy(np.array(image)).movedim(-1, 0)
