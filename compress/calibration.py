"""The images, with a caption each, on which a tower is scored and repaired.

Stands between corpus and importance: draws a seeded sample of a corpus, drops what can't be read,
and hands out batches as a model takes them. Images are decoded anew in every pass, so memory does
not grow with their number.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from datasets import Dataset
from torch import Tensor
from tqdm import tqdm

from corpora import drop_unreadable, open_image


@dataclass(frozen=True)
class Batch:
    """Pixels `[b, 3, height, width]` and the tokenised caption of each image."""

    pixels: Tensor
    tokens: dict[str, Tensor]


@dataclass(frozen=True)
class Calibration:
    """A sample of a corpus, ready to be run through a tower.

    `corpus` has one caption an image, in a column `caption`; `unreadable` names what was dropped.
    """

    corpus: Dataset
    unreadable: tuple[str, ...]
    processor: object
    tokenizer: object
    batch_size: int = 32
    device: str = "cpu"

    @classmethod
    def draw(
        cls,
        corpus: Dataset,
        samples: int,
        seed: int,
        processor: object,
        tokenizer: object = None,
        batch_size: int = 32,
        device: str = "cpu",
    ) -> "Calibration":
        """Draw `samples` images, and one caption of each, with a generator seeded by `seed`.

        A corpus with fewer readable images gives all that it has. The captions are tokenised by
        `tokenizer`, or by the processor's own.
        """
        tokenizer = tokenizer or getattr(processor, "tokenizer", None)
        generator = random.Random(seed)
        order = generator.sample(range(len(corpus)), min(samples, len(corpus)))
        sample, unreadable = drop_unreadable(corpus.select(order))
        captions = [generator.choice(several) for several in sample["captions"]]
        sample = sample.add_column("caption", captions)
        return cls(sample, tuple(unreadable), processor, tokenizer, batch_size, device)

    def __len__(self) -> int:
        return len(self.corpus)

    def first(self, images: int) -> "Calibration":
        """The first `images` of this sample."""
        return replace(self, corpus=self.corpus.select(range(min(images, len(self)))))

    def batches(self, progress: str | None = None) -> Iterator[Batch]:
        """Batches of nearly equal size, with a progress bar of that title if one is given."""
        bounds = torch.linspace(0, len(self), -(-len(self) // self.batch_size) + 1).round().int()
        bar = tqdm(total=len(self), desc=progress, unit="image", disable=progress is None)
        with bar:
            for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
                yield self._batch(self.corpus[start:end])
                bar.update(end - start)

    def _batch(self, rows: dict[str, list]) -> Batch:
        images = [open_image(image) for image in rows["image"]]
        pixels = self.processor(images=images, return_tensors="pt")["pixel_values"]
        tokens = {}
        if self.tokenizer is not None:
            tokens = self.tokenizer(
                rows["caption"], padding=True, truncation=True, return_tensors="pt"
            )
        on_device = {name: tensor.to(self.device) for name, tensor in tokens.items()}
        return Batch(pixels.to(self.device), on_device)
