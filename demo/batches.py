"""Training batches for demo.train: batch `step` is a pure function of the seed and the step.

Scenes are drawn as they are needed, so no image is ever seen twice; any other corpus is walked
through in a new order each epoch, cropped and mirrored at random.
"""

import functools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from transformers import CLIPTokenizer

from corpora import open_image
from corpora.scenes import SEEDS, captions, render, scene
from demo.phrases import Phrases

SIDED = {"left", "right"}  # words that a mirrored image makes untrue


@dataclass(frozen=True)
class Batch:
    """What one step learns from.

    pixels: uint8 [B, S, S, 3]; tokens: int64 [B, C, T], C captions of each image; phrases: float
    [B, P], 1 where the image's captions say the phrase.
    """

    pixels: torch.Tensor
    tokens: torch.Tensor
    phrases: torch.Tensor


class Source(Protocol):
    """Where training examples come from, without end."""

    def example(self, number: int, side: int) -> tuple[Image.Image, Sequence[str]]:
        """Example `number`: an RGB image of side × side pixels and its captions."""

    def captions(self) -> Sequence[Sequence[str]]:
        """The captions of many images, to learn a vocabulary from."""


class SceneSource:
    """Generated scenes, each seen once."""

    def example(self, number: int, side: int) -> tuple[Image.Image, Sequence[str]]:
        """Training scene `number`."""
        drawn = scene(SEEDS["train"], number)
        return render(drawn, side), captions(drawn)

    def captions(self) -> Sequence[Sequence[str]]:
        """Those of the first 4,096 training scenes; they say everything that scenes can say."""
        return [captions(scene(SEEDS["train"], number)) for number in range(4096)]


class CorpusSource:
    """The training split of a corpus, walked through again and again, in a new order each time."""

    def __init__(self, corpus: Dataset, seed: int):
        self.corpus, self.seed = corpus, seed
        self._order = functools.lru_cache(maxsize=2)(self._shuffled)

    def example(self, number: int, side: int) -> tuple[Image.Image, Sequence[str]]:
        """The image at this place of the walk, cropped, and mirrored where the captions allow."""
        epoch, place = divmod(number, len(self.corpus))
        row = self.corpus[int(self._order(epoch)[place])]
        dice = random.Random(f"crop/{self.seed}/{number}")
        image = cropped(open_image(row["image"]), side, dice)
        if dice.random() < 0.5 and not SIDED & set(" ".join(row["captions"]).lower().split()):
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return image, row["captions"]

    def captions(self) -> Sequence[Sequence[str]]:
        """All of them."""
        return list(self.corpus["captions"])

    def _shuffled(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.corpus))


def cropped(image: Image.Image, side: int, dice: random.Random) -> Image.Image:
    """About 40–100 % of the image's inner square at a random place, resized to side × side."""
    scale, stretch = dice.uniform(0.4, 1) ** 0.5, dice.uniform(3 / 4, 4 / 3) ** 0.5
    length = scale * min(image.size)
    width, height = min(image.width, length * stretch), min(image.height, length / stretch)
    left, top = dice.uniform(0, image.width - width), dice.uniform(0, image.height - height)
    box = (left, top, left + width, top + height)
    return image.resize((side, side), Image.Resampling.BICUBIC, box=box)


@dataclass(frozen=True)
class Batches(torch.utils.data.Dataset[Batch]):
    """The batches of a training, made in the data loader's process.

    size images a batch, texts captions an image; side_at(step) is the images' side in pixels.
    """

    source: Source
    tokenizer: CLIPTokenizer
    phrases: Phrases
    size: int
    texts: int
    side_at: Callable[[int], int]
    seed: int

    def __getitem__(self, step: int) -> Batch:
        """Batch `step`."""
        dice = random.Random(f"batch/{self.seed}/{step}")
        side = self.side_at(step)
        numbers = range(step * self.size, (step + 1) * self.size)
        images, captions_of_images = zip(
            *(self.source.example(number, side) for number in numbers), strict=True
        )
        chosen = [text for captions in captions_of_images for text in self._chosen(captions, dice)]
        tokens = self.tokenizer(chosen, padding=True, truncation=True, return_tensors="pt")
        return Batch(
            torch.from_numpy(np.stack([np.asarray(image) for image in images])),
            tokens["input_ids"].view(self.size, self.texts, -1),
            torch.stack([self.phrases.said(captions) for captions in captions_of_images]),
        )

    def _chosen(self, captions: Sequence[str], dice: random.Random) -> list[str]:
        if len(captions) < self.texts:
            return dice.choices(captions, k=self.texts)
        return dice.sample(captions, self.texts)
