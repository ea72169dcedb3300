"""An image processor's own steps on one picture, without what it does around them.

Most image processors of transformers are a backend's steps with settings: resize, crop, then
rescale and normalise. Around these they check and sort what they are given and copy each picture
three times, which for a small photograph costs ten times what the steps cost. Here the steps are
called alone, on a picture's own memory where that can be had, and up to the last one pixels stay
uint8: its *levels*. The results are the processor's bit for bit:

- torch resamples channels side by side, as decoders leave them, to the same integers as channels
  that lie apart, as the processor arranges them (`torch_steps`).
- Rescaling and normalising depend on a pixel's level and channel alone, so what the processor's own
  step makes of each of 256 levels is looked up: as fast as the step itself, and in one thread. The
  threads that torch would wake for it then wait a while for more, on cores that decoding could use.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import PIL.Image
from torch import Tensor
from transformers.image_processing_backends import PilBackend, TorchvisionBackend

from corpora.pixels.backends import NoStepsError
from corpora.pixels.pillow_steps import PillowSteps
from corpora.pixels.torch_steps import DirectSteps, TorchvisionSteps

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
