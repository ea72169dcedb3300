"""An image processor's own steps on one picture, without what it does around them.

Most image processors of transformers are a backend's steps with settings: resize, crop, then
rescale and normalise. Around these they check and sort what they are given and copy each picture
three times, which for a small photograph costs ten times what the steps cost. Here the steps are
called alone, on a picture's own memory where that can be had, and up to the last one pixels stay
uint8: its *levels*. The results are the processor's bit for bit:

- torch's uint8 resampling gives the same integers for channels that lie apart, as the processor
  arranges them, and for channels side by side, as decoders leave them. It goes along rows first and
  rounds, so rows may also be taken in parts.
- Rescaling and normalising depend on a pixel's level and channel alone, so what the processor's own
  step makes of each of 256 levels is looked up: as fast as the step itself, and in one thread. The
  threads that torch would wake for it then wait a while for more, on cores that decoding could use.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any, Protocol

import numpy as np
import PIL.Image
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from transformers.image_processing_backends import PilBackend, TorchvisionBackend
from transformers.image_transforms import get_resize_output_image_size, get_size_with_aspect_ratio
from transformers.image_utils import SizeDict, get_image_size_for_max_height_width

from corpora.pixels.memory import COPIED, copied, memory, view, whole

_PART = 1 << 20
"""Bytes of a picture that is resampled in parts: what a core's cache holds."""
_SIZES = 1024  # of pictures whose targets are remembered
_MODES = {
    int(PIL.Image.Resampling.BILINEAR): "bilinear",
    int(PIL.Image.Resampling.BICUBIC): "bicubic",
}
"""What torch resamples in uint8 itself, by Pillow's names."""
_AROUND = (
    *("__call__", "preprocess", "_preprocess_image_like_inputs", "_prepare_image_like_inputs"),
    *("_preprocess", "process_image", "convert_to_rgb", "resize", "center_crop", "pad"),
    *("rescale", "normalize"),
)
"""What a processor must have from its backend unchanged for the steps alone to be all it does."""


class Steps(Protocol):
    """The steps of one processor. Any thread may call them.

    Attributes:
        on_devices: whether they take decoded pictures on any device, and not Pillow's alone.
    """

    on_devices: bool

    def levels(self, images: Sequence[PIL.Image.Image]) -> Tensor:
        """Pictures of one size resized and cropped, uint8 [n, 3, height, width]."""

    def of_pixels(self, pixels: Tensor) -> Tensor:
        """Decoded pictures of one size, uint8 [n, 3, height, width], as `levels` has them.

        On their device. A GPU resamples in float32 and rounds once, so that levels differ by 1 of
        255, seldom by 2, from a CPU's. Raises `NoStepsError` unless they are taken `on_devices`.
        """

    def finished(self, levels: Tensor) -> Tensor:
        """Levels [n, 3, height, width] rescaled and normalised, on their device."""


class NoStepsError(Exception):
    """Why a processor must be called as a whole."""


def steps_of(processor: Any) -> Iterator[Steps]:
    """Ways to the steps of an image processor of transformers, the fastest first; at least one.

    Raises:
        NoStepsError: it does more than its backend's steps, or nothing is known of it.
    """
    if isinstance(processor, TorchvisionBackend):
        _check_only_steps(processor, TorchvisionBackend)
        mode = DirectSteps.mode_of(processor)
        if mode is not None:
            yield _made(DirectSteps, processor, mode)
        yield _made(TorchvisionSteps, processor)
    elif isinstance(processor, PilBackend):
        _check_only_steps(processor, PilBackend)
        yield _made(PillowSteps, processor)
    else:
        raise NoStepsError(f"{type(processor).__name__} is of no kind whose steps are known")


def _made(kind: Callable[..., Steps], processor: Any, *settings: str) -> Steps:
    """Steps of a kind; raises `NoStepsError` if a step fails already on all levels."""
    try:
        return kind(processor, *settings)
    except Exception as error:  # of settings that don't fit, or of a release with other steps
        name = type(processor).__name__
        raise NoStepsError(f"the steps of {name} can't be called alone: {error}") from error


def _check_only_steps(processor: Any, backend: type) -> None:
    name = type(processor).__name__
    for method in (*_AROUND, "rescale_and_normalize"):
        if getattr(type(processor), method, None) is not getattr(backend, method, None):
            raise NoStepsError(f"{name} has a {method} of its own")
        if method in vars(processor):
            raise NoStepsError(f"this {name} was given another {method}")
    if getattr(processor, "do_pad", None):
        raise NoStepsError(f"{name} pads (do_pad)")
    if getattr(processor, "device", None) is not None:
        raise NoStepsError(f"{name} works on a device of its own")
    if getattr(processor, "data_format", None) not in (None, "channels_first"):
        raise NoStepsError(f"{name} gives channels last (data_format)")


class TorchvisionSteps:
    """Those of a processor of the torchvision backend, which resamples by torch."""

    on_devices = True

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._target = lru_cache(_SIZES)(partial(_target, processor.size))
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
            image = _rgb(image, own)
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
            return _looked_up(self._table, levels)
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
        if not (small and len(images) > 1 and own.do_resize and all(map(_is_plain, images))):
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


class PillowSteps:
    """Those of a processor of the Pillow backend, which resamples by Pillow, a little otherwise."""

    on_devices = False

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._target = lru_cache(_SIZES)(partial(_target, processor.size))
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
        image = _rgb(image, own)
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
            looked_up = [
                row[levels[:, at].int()] for at, row in enumerate(self._table.to(levels.device))
            ]
            return torch.stack(looked_up, 1)
        return _looked_up(self._table, levels)


def _looked_up(table: Tensor, levels: Tensor) -> Tensor:
    """What a table [3, 256] has for levels [n, 3, height, width], on the CPU, in this thread."""
    pixels = table.new_empty(levels.shape)
    for image, made in zip(levels.numpy(), pixels.numpy(), strict=True):
        for at, row in enumerate(table.numpy()):  # in a quarter of torch's time
            row.take(image[at], out=made[at], mode="clip")
    return pixels


def _is_plain(image: PIL.Image.Image) -> bool:
    """Whether a processor begins with a picture as it is."""
    return image.mode == "RGB" and image.info.get("transparency") is None


def _rgb(image: PIL.Image.Image, processor: Any) -> PIL.Image.Image:
    """A picture as its processor begins with it: one with a transparent colour on white."""
    if _is_plain(image):
        return image
    pixels = processor.process_image(image, do_convert_rgb=processor.do_convert_rgb)
    return PIL.Image.fromarray(np.ascontiguousarray(np.moveaxis(np.asarray(pixels), 0, -1)))


def _target(size: Any, height: int, width: int) -> tuple[int, int]:
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
