"""From whatever a caller has to what a tower takes: images opened and prepared for a stage.

Between `corpora.pixels`, which knows processors and devices, and the stage. On a GPU JPEG files are
decoded there where its decoder is installed; what is read and decoded on the CPU is done in threads
while the tower works, and copied beside it.
"""

import json
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from cascade.stages.images import ImageSource, UnreadableImage, jpeg_file, open_image
from corpora import CorpusError
from corpora.decoding.jpeg.whole import JpegFile
from corpora.decoding.reads import Reads, Tally, known
from corpora.pixels import Preparer, edge_taken
from corpora.pixels.ahead import ahead, batches_ahead, joined
from corpora.pixels.on_device import DeviceDecoder, beside, handed_over, sent
from corpora.pixels.waiting import Held, OnDevice, Waiting
from pruning_mechanism.protocols import ImageProcessor

_BATCHES_AHEAD = 2
"""That lie on a device before they are asked for."""


@dataclass(frozen=True)
class Prepared:
    """An image that is decoded and prepared already; a stage takes it in an image's place.

    One that prepares images in another way opens `source`.

    Attributes:
        levels: [1, 3, height, width] on the CPU, ready but for the last step: uint8 where the
            processor's steps are known. Or the file, if the stage's device is to decode it.
        preparation: how it was prepared.
        source: the image itself.
        by_thumbnail: whether it was the thumbnail that was decoded.
    """

    levels: Tensor | JpegFile
    preparation: str
    source: ImageSource
    by_thumbnail: bool = False

    def __call__(self) -> ImageSource:
        """The image itself."""
        return self.source


class Preparation:
    """Opens and prepares images as a processor has it.

    Attributes:
        processor: the image processor.
        reads: how much of a file is read.
        tally: what came of looking for thumbnails, if these are read.
        decoder: decodes JPEG files on the device; None: all is decoded on the CPU.
    """

    def __init__(self, processor: ImageProcessor, reads: Reads, device: torch.device) -> None:
        """Begin nothing yet.

        Args:
            processor: an image processor of transformers.
            reads: how much of a file is read.
            device: where the tower is.

        Raises:
            ValueError: there is no such way to read.
        """
        self.reads = known(reads)
        self.tally = Tally()
        self.decoder: DeviceDecoder | None = None
        if device.type == "cuda" and self.reads == "full":  # it decodes nothing at less
            self.decoder = DeviceDecoder.on(device)
        self.processor = processor

    @property
    def settings(self) -> dict[str, Any]:
        """How images are prepared: the image processor's settings, and what is read.

        What is read in full isn't said, so that the names of such stages are what they were.
        """
        settings: dict[str, Any] = self.processor.to_dict()
        return settings if self.reads == "full" else {**settings, "reads": self.reads}

    @property
    def edge(self) -> int | None:
        """Pixels of a picture's shorter edge that the tower is given; None: all of them."""
        return edge_taken(self.processor)

    @property
    def fallback(self) -> str | None:
        """Why the image processor is called as a whole, slowly; None: its steps alone are."""
        return self._preparer.fallback

    def pixels(self, images: Sequence[ImageSource], device: torch.device) -> Tensor:
        """Float32 [n, 3, height, width] on a device, made in this thread.

        Raises:
            UnreadableImage: an image can't be decoded or prepared.
        """
        return handed_over(self._finished(device, self._begun(images)))

    def batches(
        self,
        batches: Iterable[Sequence[ImageSource]],
        device: torch.device,
        threads: int | None = None,
    ) -> Generator[Tensor, None, None]:
        """`pixels` of many batches, in order, made ahead of their turn.

        Args:
            batches: taken in the thread that asks.
            device: where the pixels go.
            threads: that open images: see `batches_ahead`.

        Raises:
            UnreadableImage: an image can't be decoded or prepared.
        """
        if device.type != "cuda" and self.decoder is None:  # nothing is done beside the tower
            with closing(batches_ahead(batches, self._levels, joined, threads)) as ready:
                for levels in ready:
                    yield self._preparer.finished(sent(levels, device))
            return
        finish = partial(self._finished, device)
        threads = torch.get_num_threads() if threads is None else threads
        with closing(batches_ahead(batches, self._begun, _chained, threads)) as begun:
            if threads == 1:
                yield from map(handed_over, map(finish, begun))
                return
            with closing(ahead(begun, finish, 1, _BATCHES_AHEAD)) as made:
                yield from map(handed_over, made)

    def prepare(self, image: ImageSource, source: "ImageSource | None" = None) -> Prepared:
        """Decode and prepare an image ahead of its turn; any thread may.

        Args:
            image: what to open.
            source: what to open if it must be prepared in another way; by default the same.

        Raises:
            UnreadableImage: it can't be decoded or prepared.
        """
        kept = image if source is None else source
        held = self._held(image)
        if isinstance(held, Held):
            return Prepared(held.file, self._name, kept)
        seen = Tally()  # of this image alone
        try:
            levels = self._levels([held], seen)
        finally:
            self.tally.take(seen)
        return Prepared(levels, self._name, kept, "used" in seen.counts)

    def _begun(self, images: Sequence[ImageSource]) -> list[Waiting]:
        """What is done on the CPU for images that go to a device."""
        found = [self._held(image) for image in images]
        rest = [each for each in found if not isinstance(each, Held)]
        levels = iter(self._levels(rest) if rest else ())
        return [each if isinstance(each, Held) else next(levels) for each in found]

    def _held(self, image: ImageSource) -> "Held | ImageSource":
        """An image whose file waits for the device's decoder; else what is opened on the CPU."""
        if self.decoder is None:
            return image
        if isinstance(image, Prepared):
            file = image.levels if image.preparation == self._name else None
            return Held(file, image) if isinstance(file, JpegFile) else image
        given, found = jpeg_file(image, self._on(self.decoder.device).takes)
        return given if found is None else Held(found, given)

    def _finished(self, device: torch.device, waiting: Sequence[Waiting]) -> Tensor:
        """A batch that was begun, as the tower takes it."""
        with beside(device):
            levels = self._on(device).levels(waiting)
            return self._preparer.finished(levels)

    def _levels(self, images: Sequence[ImageSource], tally: Tally | None = None) -> Tensor:
        """Images opened and prepared up to the last step, by now or now: [n, 3, height, width]."""
        if any(isinstance(image, Prepared) for image in images):
            return joined([self._of_prepared(image) for image in images])
        try:
            opener = partial(open_image, tally=self.tally if tally is None else tally)
            return self._preparer.levels(images, opener, self.reads)
        except UnreadableImage:
            raise
        except CorpusError as error:
            raise UnreadableImage(f"cannot read the image: {error}") from error

    def _of_prepared(self, image: ImageSource) -> Tensor:
        """The levels of one image, prepared now or before."""
        if not isinstance(image, Prepared):
            return self._levels([image])
        if image.preparation != self._name:
            return self._levels([image()])
        made = image.levels
        if isinstance(made, Tensor):
            return made
        return self._levels([{"path": made.path, "bytes": made.content}])

    def _on(self, device: torch.device) -> OnDevice:
        return OnDevice(device, self._preparer, self.decoder, self._levels)

    @property
    def _preparer(self) -> Preparer:
        return Preparer.of(self.processor)

    @cached_property
    def _name(self) -> str:
        return json.dumps(self.settings, sort_keys=True, default=str)


def _chained(parts: Sequence[list[Waiting]]) -> list[Waiting]:
    return [*chain.from_iterable(parts)]
