"""Images that wait for a device: JPEG files it decodes itself, and the levels of all others.

What can be done before is done on the CPU, in any thread: files are read and checked, pictures that
the device can't decode are opened, resized and cropped. The rest is done for a batch at once.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from corpora.decoding.jpeg.head import Frame
from corpora.decoding.jpeg.whole import JpegFile
from corpora.decoding.watching import count_images
from corpora.pixels.on_device import DeviceDecoder, sent, upright
from corpora.pixels.preparer import Preparer
from corpora.pixels.proportions import LONG, different_sizes
from corpora.problems import CorpusError

_logger = logging.getLogger(__name__)
_TOGETHER = 16_000_000
"""Levels of pictures that are resized at once, in float32."""


@dataclass(frozen=True)
class Held:
    """A JPEG file that waits for a device, and the image that it was read for."""

    file: JpegFile
    image: Any


Waiting = Tensor | Held
"""An image: its levels [3, height, width] on the CPU, or its file."""

_Part = tuple[list[int], Tensor]  # places in a batch, and the levels of these on the device


@dataclass(frozen=True)
class OnDevice:
    """Prepares images on a device, as far as that can be done there.

    Attributes:
        device: where the levels of all images go.
        preparer: resizes and crops.
        decoder: of JPEG files; None: pictures are opened on the CPU.
        opened: images → their levels [n, 3, height, width] on the CPU. It opens what the decoder
            doesn't take or fails on.
    """

    device: torch.device
    preparer: Preparer
    decoder: DeviceDecoder | None
    opened: Callable[[Sequence[Any]], Tensor]

    def takes(self, frame: Frame) -> bool:
        """Whether pictures of this kind are decoded on the device."""
        short, long = sorted(frame.size)
        usual = self.preparer.on_devices and long <= LONG * short
        return usual and self.decoder is not None and self.decoder.takes(frame)

    def levels(self, waiting: Sequence[Waiting]) -> Tensor:
        """The levels of a batch: uint8 [n, 3, height, width] on the device.

        Raises:
            CorpusError: whatever `opened` raises.
            ValueError: the images come out in different sizes.
        """
        held = {at: each for at, each in enumerate(waiting) if isinstance(each, Held)}
        ready = {at: each for at, each in enumerate(waiting) if isinstance(each, Tensor)}
        found = list(self._decoded(held))
        failed = held.keys() - {at for places, _ in found for at in places}
        count_images(len(held) - len(failed))  # these are counted as they are opened
        if failed:
            levels = self.opened([held[at].image for at in sorted(failed)])
            found.append((sorted(failed), sent(levels, self.device)))
        if ready:
            found.append((list(ready), sent(_stacked(list(ready.values())), self.device)))
        return _placed(found, self.device)

    def _decoded(self, held: Mapping[int, Held]) -> Iterator[_Part]:
        """Levels of files; those are missing that the device failed on."""
        if self.decoder is None:
            return
        places = iter(held.items())
        for pictures in self.decoder.decoded([each.file for each in held.values()]):
            # by a generator of its own, which holds no picture any more once it has ended
            yield from self._resized([next(places) for _ in pictures], pictures)

    def _resized(
        self, held: Sequence[tuple[int, Held]], pictures: Sequence[Tensor | None]
    ) -> Iterator[_Part]:
        """Levels of decoded pictures; those are missing that there are none of, or that fail."""
        sizes: dict[tuple[int, ...], list[tuple[int, Tensor]]] = {}
        for (at, each), picture in zip(held, pictures, strict=True):
            if picture is not None:
                turned = upright(picture, each.file.orientation)
                sizes.setdefault(tuple(turned.shape), []).append((at, turned))
        for alike in sizes.values():
            step = max(1, _TOGETHER // alike[0][1].numel())
            for start in range(0, len(alike), step):
                some = alike[start : start + step]
                try:
                    batch = torch.stack([picture for _, picture in some])
                    levels = self.preparer.of_pixels(batch)
                except (CorpusError, RuntimeError) as error:
                    # no memory, or one divided by more than a GPU's kernel can: bicubic by 47
                    _logger.debug("prepared on the CPU: %s", error)
                    continue
                yield [at for at, _ in some], levels


def _stacked(levels: Sequence[Tensor]) -> Tensor:
    """[n, 3, height, width], by numpy, which copies in this thread alone."""
    if error := different_sizes(tuple(each.shape[1:]) for each in levels):
        raise error
    return torch.from_numpy(np.stack([each.numpy() for each in levels]))


def _placed(found: Sequence[_Part], device: torch.device) -> Tensor:
    """Parts of a batch in their places."""
    if not found:
        return torch.zeros(0, 3, 0, 0, device=device)
    if error := different_sizes(tuple(part.shape[2:]) for _, part in found):
        raise error
    joined = torch.cat([part for _, part in found])
    order = torch.tensor([at for places, _ in found for at in places]).argsort()
    return joined if order.diff().eq(1).all() else joined[order.to(device)]
