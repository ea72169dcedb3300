"""Steps of processors that resample by torch: on any device, on pictures' own memory on a CPU.

torch's uint8 resampling gives the same integers for channels that lie apart, as the processor
arranges them, and for channels side by side, as decoders leave them. It goes along rows first and
rounds, so rows may also be taken in parts.
"""

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from transformers.image_utils import SizeDict

from corpora.pixels.backends import SIZES, is_plain, looked_up, rgb, target
from corpora.pixels.memory import COPIED, copied, memory, view, whole

_PART = 1 << 20
"""Bytes of a picture that is resampled in parts: what a core's cache holds."""
_MODES = {
    int(PIL.Image.Resampling.BILINEAR): "bilinear",
    int(PIL.Image.Resampling.BICUBIC): "bicubic",
}
"""What torch resamples in uint8 itself, by Pillow's names."""


class TorchvisionSteps:
    """Those of a processor of the torchvision backend, which resamples by torch."""

    on_devices = True

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._target = lru_cache(SIZES)(partial(target, processor.size))
        # Where torch has no such kernel it resamples in float32 and doesn't round between rows and
        # columns.
        self._in_parts = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
        every = torch.arange(256, dtype=torch.uint8).repeat(3).view(1, 3, 16, 16)
        self._table = self._rescaled(every).reshape(3, 256)

    def levels(self, images: Sequence[PIL.Image.Image]) -> Tensor:
        """Pictures resized and cropped, uint8 [n, 3, height, width], one perhaps a view of it."""
        own = self._processor
        made = []
        for image in images:
            image = rgb(image, own)
            pixels = self._resized(image) if own.do_resize else whole(image)
            made.append((self._cropped(pixels) if own.do_center_crop else pixels)[:3])
        if len(made) == 1:
            return made[0][None]
        return torch.from_numpy(np.stack([pixels.numpy() for pixels in made]))

    def of_pixels(self, pixels: Tensor) -> Tensor:
        """Decoded pictures as `levels` has them, on their device."""
        if self._processor.do_resize:
            pixels = self._resampled_together(pixels, *self._target(*pixels.shape[2:]))
        return self._cropped(pixels) if self._processor.do_center_crop else pixels

    def finished(self, levels: Tensor) -> Tensor:
        """Levels [n, 3, height, width] rescaled and normalised, on their device."""
        if levels.device.type == "cpu":
            return looked_up(self._table, levels)
        return self._rescaled(levels)

    def _rescaled(self, levels: Tensor) -> Tensor:
        own = self._processor
        pixels: Tensor = own.rescale_and_normalize(
            levels,
            own.do_rescale,
            own.rescale_factor,
            own.do_normalize,
            own.image_mean,
            own.image_std,
        )
        return pixels

    def _resized(self, image: PIL.Image.Image) -> Tensor:
        height, width = self._target(image.height, image.width)
        pixels = view(image)
        if pixels is not None:
            return self._resampled(pixels, height, width)
        if not self._in_parts:
            return self._resampled(whole(image), height, width)
        rows = max(1, _PART // (4 * image.width))
        parts = []
        for top in range(0, image.height, rows):
            part = image.crop((0, top, image.width, min(top + rows, image.height)))
            pixels = memory(part)  # of the last, small one too: all have the same channels
            pixels = copied(part) if pixels is None else pixels
            across = self._resampled(pixels, part.height, width)
            parts.append(across.movedim(0, -1))
        return self._resampled(torch.cat(parts).movedim(-1, 0), height, width)

    def _resampled(self, pixels: Tensor, height: int, width: int) -> Tensor:
        own = self._processor
        size = SizeDict(height=height, width=width)
        resampled: Tensor = own.resize(image=pixels, size=size, resample=own.resample)
        return resampled

    def _resampled_together(self, batch: Tensor, height: int, width: int) -> Tensor:
        return self._resampled(batch, height, width)

    def _cropped(self, pixels: Tensor) -> Tensor:
        cropped: Tensor = self._processor.center_crop(pixels, self._processor.crop_size)
        return cropped


class DirectSteps(TorchvisionSteps):
    """The same by one call of torch for each, where the backend's ways come down to that.

    Between a backend's step and torch lie some ten functions, which together take several times as
    long as resampling a small picture; so does torch's own call, if there is one for each picture.
    """

    def __init__(self, processor: Any, mode: str) -> None:
        super().__init__(processor)
        self._mode = mode
        crop = processor.crop_size if processor.do_center_crop else None
        self._crop = (crop.height, crop.width) if crop and crop.height and crop.width else None

    @staticmethod
    def mode_of(processor: Any) -> str | None:
        """What torch calls a processor's resampling; None where torch has no kernel for uint8."""
        kernels = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
        mode = "bilinear" if processor.resample is None else _MODES.get(processor.resample)
        return mode if kernels else None

    def levels(self, images: Sequence[PIL.Image.Image]) -> Tensor:
        """Pictures of one size resized and cropped; small ones all at once."""
        own, first = self._processor, images[0]
        small = first.width * first.height < COPIED
        if not (small and len(images) > 1 and own.do_resize and all(map(is_plain, images))):
            return super().levels(images)
        shape = first.height, first.width
        pixels = np.empty((len(images), *shape, 3), dtype=np.uint8)
        for place, image in enumerate(images):
            pixels[place] = np.asarray(image)
        resampled = self._interpolated(
            torch.from_numpy(pixels).movedim(-1, 1), self._target(*shape)
        )
        return self._cropped(resampled) if own.do_center_crop else resampled

    def _resampled(self, pixels: Tensor, height: int, width: int) -> Tensor:
        # Of channels side by side torch makes such again, without a copy, if it can tell that they
        # are: by the stride of a batch, which of a batch of one picture may be any.
        batch = pixels.as_strided((1, *pixels.shape), (pixels.numel(), *pixels.stride()))
        return self._interpolated(batch, (height, width))[0]

    def _resampled_together(self, batch: Tensor, height: int, width: int) -> Tensor:
        return self._interpolated(batch, (height, width))

    def _interpolated(self, batch: Tensor, shape: tuple[int, int]) -> Tensor:
        if batch.shape[2:] == shape:
            return batch
        own = batch.device.type == "cpu"  # elsewhere torch has no kernel for uint8
        resampled: Tensor = interpolate(
            batch if own else batch.float(),
            shape,
            mode=self._mode,
            align_corners=False,
            antialias=True,
        )
        return resampled if own else resampled.round_().clamp_(0, 255).to(torch.uint8)

    def _cropped(self, pixels: Tensor) -> Tensor:
        height, width = pixels.shape[-2:]
        if self._crop is None or self._crop[0] > height or self._crop[1] > width:
            return super()._cropped(pixels)
        down, across = self._crop
        top, left = (height - down) // 2, (width - across) // 2
        return pixels[..., top : top + down, left : left + across]
