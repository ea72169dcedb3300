"""What models are scored by: Recall@1 of a text-to-image search, top-1 of classification, nothing.

A `Measure` opens its images once and scores one model after the other on them.
"""

from collections.abc import Sequence
from itertools import islice
from typing import Protocol

import torch
from datasets import Dataset
from torch import Tensor

from commands.published import published_corpus
from compress.errors import UserError
from evaluation.classifying.accuracy import Space, answers
from evaluation.classifying.classifier import texts_of
from evaluation.classifying.measure import refuse_seen
from evaluation.classifying.stages import Classifiers, Classifying
from evaluation.classifying.tasks import TaskSet
from evaluation.comparing.models import Compared
from evaluation.experiment.quality import Queries
from evaluation.experiment.search import text_embeddings_of
from evaluation.measuring.bootstrap import Bootstrap
from evaluation.measuring.values import Interval
from evaluation.reports.latency.report import Scored
from evaluation.retrieval import hits, ranks_from_embeddings

_TEXTS_TIMED = 4096


class Measure(Protocol):
    """Images and texts that models are timed on, and scores on them.

    Attributes:
        images: columns image and key, at least one.
        texts: at least one.
        scored: what is scored, none or more.
    """

    images: Dataset
    texts: Sequence[str]
    scored: tuple[Scored, ...]

    def check(self, models: Sequence[Compared]) -> None:
        """Raise `UserError` if a model was calibrated on images that are to be scored."""

    def score(self, model: Compared) -> tuple[Interval, ...]:
        """One score for each of `scored`, in percent, with its 95 % interval."""


class Unscored:
    """A captioned corpus that models are timed on alone."""

    def __init__(self, corpus: Dataset, name: str) -> None:
        """Take the captions of a corpus, which must have images."""
        self.images = checked(corpus, name)
        self.texts: Sequence[str] = Queries.of(corpus).texts
        self.scored: tuple[Scored, ...] = ()

    def check(self, models: Sequence[Compared]) -> None:
        """Nothing is scored, so that nothing can have been seen."""

    def score(self, model: Compared) -> tuple[Interval, ...]:
        """No score."""
        return ()


class Retrieval:
    """Text → image search: the share of caption queries whose own image comes first.

    As `evaluation.cascade` counts Recall@1: ties count against the model, and the interval is a
    bootstrap over images.
    """

    def __init__(self, corpus: Dataset, name: str, split: str, captions: str, seed: int) -> None:
        """Take a corpus.

        Args:
            corpus: readable images with captions.
            name: that reports publish.
            split: of the corpus.
            captions: "all", or "first" for one of each image.
            seed: of the bootstrap.

        Raises:
            UserError: it has no image.
        """
        self.images = checked(corpus, name)
        self._name = published_corpus(name)
        self._queries = Queries.of(corpus, captions)
        self._bootstrap = Bootstrap(self._queries.target, seed=seed)
        self._embedded: dict[str, Tensor] = {}
        self.texts: Sequence[str] = self._queries.texts
        self.scored: tuple[Scored, ...] = (
            Scored(self._name, "Recall@1", self._name, split, len(corpus), len(self.texts)),
        )

    def check(self, models: Sequence[Compared]) -> None:
        """Raise `UserError` if a model was calibrated on an image that is searched."""
        refuse_seen([model.images for model in models], self.images, self._name)

    def score(self, model: Compared) -> tuple[Interval, ...]:
        """Recall@1 in percent."""
        images = model.images.embedded(self.images, self._name)
        ranks = ranks_from_embeddings(self._texts_of(model), images, self._queries.target)
        return (self._bootstrap.interval(hits(ranks, (1,))[:, 0]),)

    def _texts_of(self, model: Compared) -> Tensor:
        """The queries [Q, d], embedded once by each text tower."""
        stage = lender_of(model).stage
        if stage.text_name not in self._embedded:
            different = list(dict.fromkeys(self.texts))
            places = {text: place for place, text in enumerate(different)}
            found = text_embeddings_of(stage, different)
            self._embedded[stage.text_name] = found[[places[text] for text in self.texts]]
        return self._embedded[stage.text_name]


class Naming:
    """Zero-shot classification: top-1 of each task of data sets, as `evaluation.zero_shot`'s."""

    def __init__(self, data_sets: Sequence[TaskSet], seed: int) -> None:
        """Take labelled data sets, at least one, and the seed of the bootstrap."""
        self._data_sets = data_sets
        self._classifiers = Classifiers()
        self._seed = seed
        self.images = checked(data_sets[0].images, data_sets[0].name)
        task = data_sets[0].tasks[0]
        every = (text for names in task.classes for text in texts_of(names, task.templates))
        self.texts: Sequence[str] = list(islice(every, _TEXTS_TIMED))
        self.scored: tuple[Scored, ...] = tuple(
            Scored(task.name, "top-1", data.name, data.split, len(task.labels), len(task.classes))
            for data in data_sets
            for task in data.tasks
        )

    def check(self, models: Sequence[Compared]) -> None:
        """Raise `UserError` if a model was calibrated on an image that is classified."""
        for data in self._data_sets:
            refuse_seen([model.images for model in models], data.images, data.name)

    def score(self, model: Compared) -> tuple[Interval, ...]:
        """Top-1 of each task in percent."""
        lender, found = lender_of(model), []
        for data in self._data_sets:
            images = model.images.embedded(data.images, data.name)
            for task in data.tasks:
                space = Space(images[task.rows], self._classifiers.of(lender, task))
                right = answers(space, task.labels).ranks == 0
                bootstrap = Bootstrap(torch.arange(len(right)), seed=self._seed)
                found.append(bootstrap.interval(right))
        return tuple(found)


def lender_of(model: Compared) -> Classifying:
    """Whose text tower a model is scored with.

    Raises:
        ValueError: it was opened without one.
    """
    if model.texts is None:
        raise ValueError(f"{model.name} was opened without a text tower to be scored with")
    return model.texts


def checked(images: Dataset, name: str) -> Dataset:
    """The images, unless there is none: `UserError`."""
    if not len(images):
        raise UserError(f"{published_corpus(name)}: no image is left that can be read")
    return images
