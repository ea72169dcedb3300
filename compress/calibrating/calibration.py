"""The images, with a caption each, on which a tower is scored and repaired.

Stands between corpus and importance: draws a seeded sample of a corpus, drops what can't be read,
and hands out batches as towers take them. Images are decoded anew in every pass, so memory does not
grow with their number, and only if the pass asks for them; so are captions tokenised.
"""

import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from compress.errors import UserError
from corpora import drop_unreadable
from corpora.column import undecoded
from corpora.decoding.images import any_has_thumbnail
from corpora.decoding.reads import Reads
from corpora.decoding.simulating import usual_long_side, with_thumbnail
from corpora.decoding.sources import content_of
from corpora.pixels import Preparer, edge_taken
from corpora.pixels.ahead import InTurn
from corpora.pixels.on_device import sent
from pruning_mechanism import TowerKind, check_belongs, load_processor, tokenise
from pruning_mechanism.protocols import Processor
from pruning_mechanism.tower import Inputs

CONTRAST = 32
"""Images that a contrastive loss tells apart, however many are computed at once."""

Tokens = Mapping[str, Tensor]
Tokeniser = Callable[[Sequence[str]], Tokens]


class Batch:
    """Some images and a caption of each, as the towers take them, made when first asked for."""

    def __init__(
        self, pixels: Tensor | Callable[[], Tensor], tokens: Tokens | Callable[[], Tokens]
    ):
        """Make a batch of what towers take, or of functions that give it.

        Args:
            pixels: [b, 3, height, width].
            tokens: the tokenised caption of each image; empty if they haven't all one.
        """
        self._pixels, self._tokens = pixels, tokens

    @property
    def parts(self) -> "Sequence[Batch]":
        """What is computed at once, in order: this batch itself."""
        return (self,)

    @cached_property
    def pixels(self) -> Tensor:
        """The images, [b, 3, height, width]."""
        return self._pixels() if callable(self._pixels) else self._pixels

    @cached_property
    def tokens(self) -> Tokens:
        """The tokenised caption of each image; empty if they haven't all one."""
        return self._tokens() if callable(self._tokens) else self._tokens

    def inputs(self, tower: TowerKind) -> Inputs:
        """What a tower of that kind takes: the pixels, or the tokens.

        Raises:
            UserError: a text tower is to get captions that aren't there.
        """
        if tower == "vision":
            return self.pixels
        if not self.tokens:
            raise UserError(
                "a text tower needs a caption for each image and a tokenizer: name a corpus and a "
                "CLIP that have them"
            )
        return self.tokens


@dataclass(frozen=True)
class Group:
    """Images that a loss sees together, in the batches that are computed at once."""

    parts: Sequence[Batch]


@dataclass(frozen=True)
class Calibration:
    """A sample of a corpus, ready to be run through a tower.

    `corpus` has one caption an image, in a column `caption`; `unreadable` names what was dropped.
    `processor` prepares images; None: batches have no pixels.
    `tokenise` makes of captions what a text tower takes; None: batches have no tokens. `reads` is
    how much of a file is read; `long_side` of how many pixels is the thumbnail that files are first
    given, as a camera would have put there, where they have none; None: none are given.
    """

    corpus: Dataset
    unreadable: tuple[str, ...]
    processor: Processor | None
    tokenise: Tokeniser | None = None
    batch_size: int = 32
    device: str = "cpu"
    reads: Reads = "full"
    long_side: int | None = None

    @classmethod
    def draw(
        cls,
        corpus: Dataset,
        samples: int,
        seed: int,
        processor: Processor | None,
        tokenise: Tokeniser | None = None,
        batch_size: int = 32,
        device: str = "cpu",
    ) -> "Calibration":
        """Draw `samples` images, and one caption of each, with a generator seeded by `seed`.

        A corpus with fewer readable images gives all that it has. An image without captions gets an
        empty one. Which images are drawn doesn't depend on which tower they are for.
        """
        generator = random.Random(seed)
        order = generator.sample(range(len(corpus)), min(samples, len(corpus)))
        sample, unreadable = drop_unreadable(corpus.select(order))
        captions = [generator.choice(several) if several else "" for several in sample["captions"]]
        sample = sample.add_column("caption", captions)
        return cls(sample, tuple(unreadable), processor, tokenise, batch_size, device)

    def __len__(self) -> int:
        return len(self.corpus)

    def first(self, images: int) -> "Calibration":
        """The first `images` of this sample."""
        return replace(self, corpus=self.corpus.select(range(min(images, len(self)))))

    def batches(self, progress: str | None = None) -> Iterator[Batch]:
        """Batches of nearly equal size, with a progress bar of that title if one is given."""
        shares = _shares(range(len(self)), self.batch_size)
        for group in self._groups([[rows] for rows in shares], progress):
            yield from group.parts

    def groups(self, progress: str | None = None) -> Iterator[Group]:
        """Groups of nearly equal size that a contrastive loss sees together, at most `CONTRAST`.

        Which images share one doesn't depend on `batch_size`, which only bounds their parts.
        """
        shares = _shares(range(len(self)), CONTRAST)
        yield from self._groups([_shares(rows, self.batch_size) for rows in shares], progress)

    def _groups(self, groups: Sequence[Sequence[range]], progress: str | None) -> Iterator[Group]:
        """Groups of batches of rows; while one is computed, the next batches are prepared."""
        batches = [rows for group in groups for rows in group]
        place = itertools.count()
        bar = tqdm(total=len(self), desc=progress, unit="image", disable=progress is None)
        with bar, closing(InTurn(batches, self._undecoded, self._levels)) as levels:
            for group in groups:
                yield Group([self._batch(rows, partial(levels, next(place))) for rows in group])
                bar.update(sum(map(len, group)))

    @cached_property
    def _images(self) -> Dataset:
        return undecoded(self.corpus)

    @cached_property
    def _captions(self) -> Dataset:
        return self.corpus.select_columns("caption")

    def _batch(self, rows: range, levels: Callable[[], Tensor]) -> Batch:
        return Batch(
            lambda: self._finished(levels()),
            lambda: self._tokens(self._captions[rows]["caption"]),
        )

    def pixels(self, rows: Sequence[int]) -> Tensor:
        """Some of the images as the tower takes them, [b, 3, height, width].

        Raises:
            ValueError: the sample was drawn without a processor.
        """
        return self._finished(self._levels(self._undecoded(rows)))

    def _undecoded(self, rows: Sequence[int]) -> Sequence[Any]:
        images: Sequence[Any] = self._images[rows]["image"]
        return images

    def _levels(self, images: Sequence[Any]) -> Tensor:
        if self.long_side:
            images = [with_thumbnail(content_of(image), self.long_side) for image in images]
        return self._preparer.levels(images, reads=self.reads)

    def _finished(self, levels: Tensor) -> Tensor:
        return self._preparer.finished(sent(levels, self.device))

    @property
    def _preparer(self) -> Preparer:
        if self.processor is None:
            raise ValueError("this sample was drawn without a processor: it has no pixels")
        return Preparer.of(self.processor)

    def reading(self, reads: Reads, full: Processor | None = None) -> "Calibration":
        """The same sample with so much of its files read.

        If thumbnails are read and no file has any, all are given one.

        Args:
            reads: how much.
            full: the full tower's processor, to which thumbnails are what a camera's are to a usual
                one; by default the sample's own. A tower of smaller images meets the same ones.
        """
        usual = self.processor if full is None else full
        edge = None if usual is None else edge_taken(usual)
        lacking = reads == "thumbnail" and not any_has_thumbnail(self.files())
        given = usual_long_side(edge) if lacking and edge is not None else None
        return replace(self, reads=reads, long_side=given)

    def files(self) -> Iterator[Mapping[str, Any]]:
        """The images as they are stored, each a `path`, or `bytes`, or both."""
        for rows in _shares(range(len(self)), self.batch_size):
            yield from self._images[rows]["image"]

    def _tokens(self, captions: Sequence[str]) -> Tokens:
        return self.tokenise(captions) if self.tokenise and all(captions) else {}


def _shares(rows: range, most: int) -> list[range]:
    """Rows in order, in parts of nearly equal size and at most so many."""
    bounds = torch.linspace(0, len(rows), -(-len(rows) // most) + 1).round().int().tolist()
    return [rows[start:end] for start, end in itertools.pairwise(bounds)]


def calibrate(
    model: PreTrainedModel,
    corpus: Dataset | Calibration,
    samples: int,
    seed: int,
    texts: PreTrainedModel | None = None,
) -> Calibration:
    """The calibration sample that `corpus` is, or one drawn from it for `model`.

    Captions are tokenised for `model`'s text tower, or for that of `texts` if it has none.
    """
    if isinstance(corpus, Calibration):
        return corpus
    processor = load_processor(model.config._name_or_path)
    check_belongs(processor, model)
    source, of_texts = model, processor
    if texts is not None and not hasattr(model, "text_model"):
        source, of_texts = texts, load_processor(texts.config._name_or_path)
    tokeniser = tokeniser_of(source, of_texts)
    return Calibration.draw(corpus, samples, seed, processor, tokeniser, device=str(model.device))


def tokeniser_of(model: PreTrainedModel, processor: Processor) -> Tokeniser | None:
    """What gives captions to `model`'s text tower; None if it has none, or no tokenizer."""
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is None or not hasattr(model, "text_model"):
        return None
    return lambda captions: tokenise(model, tokenizer, captions)
