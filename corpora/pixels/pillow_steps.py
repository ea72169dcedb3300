"""Steps of processors that resample by Pillow, a little otherwise than torch does."""

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from corpora.pixels.backends import SIZES, NoStepsError, looked_up, rgb, target


class PillowSteps:
    """Those of a processor of the Pillow backend, which resamples by Pillow, a little otherwise."""

    on_devices = False

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._target = lru_cache(SIZES)(partial(target, processor.size))
        every = np.arange(256, dtype=np.uint8).reshape(1, 16, 16).repeat(3, axis=0)
        if processor.do_rescale:
            every = processor.rescale(every, processor.rescale_factor)
        if processor.do_normalize:
            every = processor.normalize(every, processor.image_mean, processor.image_std)
        self._table = torch.from_numpy(np.ascontiguousarray(every).reshape(3, 256))

    def levels(self, images: Sequence[PIL.Image.Image]) -> Tensor:
        """Pictures of one size resized and cropped, uint8 [n, 3, height, width]."""
        return torch.from_numpy(np.stack([self._levels(image) for image in images]))

    def _levels(self, image: PIL.Image.Image) -> np.ndarray:
        own = self._processor
        image = rgb(image, own)
        if own.do_resize:
            height, width = self._target(image.height, image.width)
            # None is bilinear to the backend, which for Pillow is another
            resample = PIL.Image.Resampling.BILINEAR if own.resample is None else own.resample
            image = image.resize((width, height), resample=resample)
        pixels = np.array(image).transpose(2, 0, 1)
        if own.do_center_crop:
            pixels = own.center_crop(pixels, own.crop_size)
        return pixels

    def of_pixels(self, pixels: Tensor) -> Tensor:
        """Raises `NoStepsError`."""
        raise NoStepsError("Pillow resamples pictures of its own")

    def finished(self, levels: Tensor) -> Tensor:
        """Levels [n, 3, height, width] rescaled and normalised, on their device."""
        if levels.device.type != "cpu":
            layers = [
                row[levels[:, at].int()] for at, row in enumerate(self._table.to(levels.device))
            ]
            return torch.stack(layers, 1)
        return looked_up(self._table, levels)
