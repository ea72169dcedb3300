"""JPEG files decoded, resized and cropped on a GPU, many at a time: nvJPEG through torchvision.

Between `corpora.decoding`, which reads files, and a tower on the same device. What such a decoder
doesn't give right is opened on the CPU: files of other formats, unusual or damaged ones, and kinds
of JPEG on which it was tried and disagreed with Pillow. A GPU enlarges the layers of colour in
another way than Pillow, so pixels differ at edges of colour, by 1 to 2 of 255 on average, and what
a tower is given by less.
"""

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from io import BytesIO

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from corpora.decoding.jpeg.head import Frame
from corpora.decoding.jpeg.whole import JpegFile, read_jpeg
from corpora.decoding.watching import counted, is_watched

_logger = logging.getLogger(__name__)
_DECODED_PIXELS = 128_000_000
"""Of pictures that lie decoded on the device at a time: 0.4 GB."""
_APART, _FAR_APART = 3.0, 20
"""Levels of 255 between a kind's pixels here and Pillow's: on average, and 99 of 100."""

_BESIDE = threading.Lock()
"""Held by the thread whose work is on the stream: see `_nvjpeg`."""

_Kind = tuple[tuple[tuple[int, int], ...], bool]  # layers, progressive


@dataclass(frozen=True)
class DeviceDecoder:
    """Decodes JPEG files on a device.

    Attributes:
        device: where.
        kinds: of files that it decodes as Pillow does.
    """

    device: torch.device
    kinds: frozenset[_Kind]

    @staticmethod
    def on(device: torch.device | str) -> "DeviceDecoder | None":
        """The decoder on a device; None: there is none, or none of its pictures is right."""
        return _decoder(str(device))

    def takes(self, frame: Frame) -> bool:
        """Whether it decodes pictures of this kind."""
        return _kind(frame) in self.kinds

    def decoded(self, files: Sequence[JpegFile]) -> Iterator[list[Tensor | None]]:
        """Pictures as they are stored, uint8 [3, height, width] each on the device.

        They come in groups, in order, None for those that it fails on. A group is emptied before
        the next is decoded.
        """
        for group in _groups(files):
            contents = [file.content for file in group]
            with counted():
                made = self._made(contents)
                if is_watched():
                    _wait(self.device)
            yield made
            made.clear()  # before memory is taken for the next

    def _made(self, contents: Sequence[bytes]) -> list[Tensor | None]:
        try:
            return [*_nvjpeg(contents, self.device)]
        except RuntimeError as error:  # it doesn't say of which file, or has no memory for all
            if len(contents) > 1:
                return [made for content in contents for made in self._made([content])]
            _logger.info("a JPEG file is decoded on the CPU: %s", error)
            return [None]


def upright(pixels: Tensor, orientation: int) -> Tensor:
    """A decoded picture [3, height, width] turned as its orientation, 1 to 8, says."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(-1, -2)
    flipped = {2: (-1,), 3: (-2, -1), 4: (-2,), 6: (-1,), 7: (-2, -1), 8: (-2,)}
    return pixels.flip(flipped[orientation]) if orientation in flipped else pixels


@contextmanager
def beside(device: torch.device) -> Iterator[None]:
    """Within the context a GPU works on a stream of its own; it has ended when the context does.

    One thread at a time: others wait. What is made within may be used on another stream once that
    has been said: see `handed_over`.
    """
    if device.type != "cuda":
        yield
        return
    with _BESIDE, torch.cuda.stream(_stream(device)):
        yield
        torch.cuda.current_stream(device).synchronize()


def handed_over(made: Tensor) -> Tensor:
    """A tensor that was made `beside`, for use on this thread's stream.

    Its memory is used again only when this stream has done with it too.
    """
    if made.device.type == "cuda":
        made.record_stream(torch.cuda.current_stream(made.device))
    return made


def sent(levels: Tensor, device: torch.device | str) -> Tensor:
    """Levels on a device: a quarter of the bytes that they become there.

    To a GPU from pinned memory, so that nothing waits for the copy.
    """
    if torch.device(device).type == "cuda":
        return levels.pin_memory().to(device, non_blocking=True)
    return levels.to(device)


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def _kind(frame: Frame) -> _Kind:
    return frame.layers, frame.progressive


def _groups(files: Sequence[JpegFile]) -> Iterator[Sequence[JpegFile]]:
    """Files in order, of so many pixels together as may lie decoded, or one."""
    start, held = 0, 0
    for place, file in enumerate(files):
        width, height = file.frame.size
        if place > start and held + width * height > _DECODED_PIXELS:
            yield files[start:place]
            start, held = place, 0
        held += width * height
    if start < len(files):
        yield files[start:]


def _nvjpeg(contents: Sequence[bytes], device: torch.device) -> list[Tensor]:
    """Torchvision's decoder on a device; raises RuntimeError if any of the files fails.

    It takes memory of this stream and writes into it on one of its own, which waits for nothing:
    what this stream has still to do with that memory must be done before.
    """
    from torchvision.io import ImageReadMode, decode_jpeg  # slow to import

    _wait(device)
    files = [torch.frombuffer(bytearray(content), dtype=torch.uint8) for content in contents]
    made: list[Tensor] = decode_jpeg(files, ImageReadMode.RGB, device)
    return made


@cache
def _decoder(device: str) -> DeviceDecoder | None:
    try:
        kinds = frozenset(
            kind for content in _tried() for kind in _agreeing(content, torch.device(device))
        )
    except ImportError as error:  # of torchvision without it, or none
        _logger.debug("JPEG files are decoded on the CPU: %s", error)
        return None
    if not kinds:
        _logger.debug("JPEG files are decoded on the CPU: nothing decodes them on %s", device)
        return None
    return DeviceDecoder(torch.device(device), kinds)


def _agreeing(content: bytes, device: torch.device) -> Iterator[_Kind]:
    """The kind of a file, if what a device makes of it is close to what Pillow makes."""
    file = read_jpeg(content)
    if file is None:
        return
    with PIL.Image.open(BytesIO(content), formats=["JPEG"]) as image:
        expected = torch.from_numpy(np.array(image.convert("RGB"))).movedim(-1, 0)
    try:
        found = _nvjpeg([content], device)[0].cpu()
    except (RuntimeError, AssertionError) as error:
        # built without CUDA or for CUDA without nvJPEG, or no such device
        _logger.debug("%s decodes no such file: %s", device, error)
        return
    if found.shape != expected.shape:
        return
    apart = (found.float() - expected.float()).abs()
    if apart.mean() <= _APART and apart.quantile(0.99) <= _FAR_APART:
        yield _kind(file.frame)


def _tried() -> Iterator[bytes]:
    """A file of each kind, on which a decoder must agree with Pillow."""
    few = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    picture = PIL.Image.fromarray(few).resize((173, 131), PIL.Image.Resampling.BICUBIC)
    pictures = [(picture, way) for way in range(3)] + [(picture.convert("L"), 0)]
    for image, subsampling in pictures:
        for progressive in (False, True):
            with BytesIO() as stream:
                image.save(
                    stream, "JPEG", quality=90, subsampling=subsampling, progressive=progressive
                )
                yield stream.getvalue()
