"""The ways from files to embeddings that are timed: plain transformers, and stages.

Each can go its steps one after the other, with the seconds of each, and as a whole, as it is used.
"""

import io
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import PIL
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModel, AutoProcessor

from cascade import Stage
from cascade.stages.stage import normalised
from corpora import CorpusError
from corpora.decoding.watching import watched
from pruning_mechanism import TowerError
from pruning_mechanism.costs.clock import seconds_of

Made = TypeVar("Made")


@dataclass(frozen=True)
class Steps:
    """Seconds that each step took for some files together, and the bytes that were read of them."""

    read: float
    decode: float
    prepare: float
    encode: float
    nbytes: int


class Way(Protocol):
    """A way from files to embeddings."""

    @property
    def reads(self) -> str:
        """What it reads of a file: "full", "scaled" or "thumbnail"."""

    @property
    def runtime(self) -> str:
        """What computes the tower."""

    @property
    def dtype(self) -> str:
        """The type that the tower computes in."""

    def steps(self, files: Sequence[Path]) -> Steps:
        """Open and prepare files one after the other, then encode them in batches."""

    def whole(self, files: Sequence[Path]) -> Tensor:
        """Embed files as a user would: L2-normalised float32 [n, d] on the CPU."""


class OfStage:
    """A stage, which says itself what it reads and what it runs in."""

    def __init__(self, stage: Stage) -> None:
        """Time a stage."""
        self.stage = stage
        self.reads: str = stage.reads
        self.runtime = stage.runs_in.runtime
        self.dtype = stage.runs_in.dtype
        self.device = torch.device(stage.device)

    def steps(self, files: Sequence[Path]) -> Steps:
        """As `Way.steps`: what isn't opening, and goes before encoding, is preparing.

        Raises:
            RuntimeError: the stage opens images by another way than `corpora.open_image`, or
                prepares one in several threads: then nobody can say what opening takes.
        """
        with watched() as opening:
            batches = list(_batches(files, self.stage.batch_size))
            pixels, before = _timed(lambda: [self.stage.pixels(batch) for batch in batches])
        if opening.images < len(files) or opening.seconds > before:
            raise RuntimeError(
                f"{opening.images} openings of {len(files)} images took {opening.seconds:.3g} of "
                f"{before:.3g} s: the steps of this stage can't be told apart"
            )
        return Steps(
            read=opening.reading,
            decode=opening.seconds - opening.reading,
            prepare=before - opening.seconds,
            encode=_encoding(pixels, self.stage.batch_size, self.stage.encode_pixels, self.device),
            nbytes=opening.nbytes,
        )

    def whole(self, files: Sequence[Path]) -> Tensor:
        """As `Way.whole`."""
        return self.stage.encode_images(files)


class Plain:
    """Transformers as model cards show it: pictures decoded in full, AutoProcessor, AutoModel.

    The cards don't turn a picture as its EXIF says; that would only take longer.
    """

    reads = "full"
    runtime = "transformers"
    dtype = "float32"

    def __init__(self, path: str, device: str, batch_size: int) -> None:
        """Load a checkpoint.

        Raises:
            TowerError: transformers alone can't load it.
        """
        try:
            self.model: Any = AutoModel.from_pretrained(path, dtype=torch.float32).to(device).eval()
            self.processor: Any = AutoProcessor.from_pretrained(path)
        except (OSError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise TowerError(f"{path}: transformers alone can't load this: {reason}") from error
        self.batch_size = batch_size

    def steps(self, files: Sequence[Path]) -> Steps:
        """As `Way.steps`."""
        read = decode = prepare = 0.0
        nbytes, pixels = 0, []
        for file in files:
            content, reading = _timed(file.read_bytes)
            picture, decoding = _timed(partial(_opened, io.BytesIO(content), file))
            prepared, preparing = _timed(partial(self._prepared, [picture]))
            read, decode, prepare = read + reading, decode + decoding, prepare + preparing
            nbytes += len(content)
            pixels.append(prepared)
        encode = _encoding(pixels, self.batch_size, self._encoded, self.model.device)
        return Steps(read, decode, prepare, encode, nbytes)

    def whole(self, files: Sequence[Path]) -> Tensor:
        """As `Way.whole`."""
        return torch.cat(
            [
                self._encoded(self._prepared([_opened(file, file) for file in batch]))
                for batch in _batches(files, self.batch_size)
            ]
        )

    def _prepared(self, pictures: list[Image.Image]) -> Tensor:
        values: Tensor = self.processor(images=pictures, return_tensors="pt")["pixel_values"]
        return values

    @torch.inference_mode()
    def _encoded(self, pixels: Tensor) -> Tensor:
        features = self.model.get_image_features(pixel_values=pixels.to(self.model.device))
        return normalised(features.pooler_output)


def _opened(source: Path | io.BytesIO, file: Path) -> Image.Image:
    """A picture decoded in full by Pillow alone.

    Raises:
        CorpusError: it can't be.
    """
    try:
        with Image.open(source) as image:
            return image.convert("RGB")
    except PIL.UnidentifiedImageError as error:
        raise CorpusError(
            f"{file.name}: plain transformers can't open this: leave plain transformers out with "
            "--no-plain, or time other files"
        ) from error


def _encoding(
    pixels: Sequence[Tensor],
    batch_size: int,
    encode: Callable[[Tensor], Tensor],
    device: torch.device,
) -> float:
    """Seconds of encoding prepared images, [n, 3, height, width] each, in batches."""
    batches = torch.cat(list(pixels)).split(batch_size)
    return sum(seconds_of(partial(encode, batch), device) for batch in batches)


def _batches(files: Sequence[Path], size: int) -> Iterator[Sequence[Path]]:
    for start in range(0, len(files), size):
        yield files[start : start + size]


def _timed(work: Callable[[], Made]) -> tuple[Made, float]:
    begun = time.perf_counter()
    made = work()
    return made, time.perf_counter() - begun
