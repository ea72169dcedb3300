"""A task: images, the class of each, and the names and templates that make a classifier of texts.

Several tasks may ask different things of the same images, which are then encoded once.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from datasets import Dataset
from torch import Tensor

from compress.errors import UserError
from corpora.labelled import Names


@dataclass(frozen=True)
class Task:
    """One question asked of images.

    Attributes:
        name: of the task, as tables show it.
        rows: int64 [n], which images of the set it is asked of.
        labels: int64 [n], the class of each.
        classes: the names of each class.
        templates: texts with a place for a name.
    """

    name: str
    rows: Tensor
    labels: Tensor
    classes: Names
    templates: tuple[str, ...]

    def __post_init__(self) -> None:
        """Raise `UserError` unless labels and names fit and classes can be told apart."""
        if not len(self.labels):
            raise UserError(f"{self.name}: no image is left to classify")
        if len(self.classes) < 2:
            raise UserError(
                f"{self.name}: {len(self.classes)} class; there is nothing to choose between"
            )
        if int(self.labels.max()) >= len(self.classes):
            raise UserError(
                f"{self.name}: an image has the label {int(self.labels.max())}, but there are "
                f"{len(self.classes)} class names, for the labels from 0"
            )

    def images_of_each(self) -> list[int]:
        """How many images each class has."""
        found: list[int] = torch.bincount(self.labels, minlength=len(self.classes)).tolist()
        return found


@dataclass(frozen=True)
class TaskSet:
    """Readable images, and the tasks that are asked of them.

    Attributes:
        name: of the data set, as reports publish it.
        split: of the data set.
        images: columns image and key.
        skipped: keys of the images that can't be read.
        tasks: at least one.
        notes: what a reader of the numbers should know.
    """

    name: str
    split: str
    images: Dataset
    skipped: tuple[str, ...]
    tasks: tuple[Task, ...]
    notes: tuple[str, ...] = ()


def alike(classes: Names) -> list[str]:
    """The names that two classes or more share entirely: no text can tell these apart."""
    times = Counter(map(_folded, classes))
    shared = [" / ".join(names) for names in classes if times[_folded(names)] > 1]
    return list(dict.fromkeys(shared))


def distinct(names: Sequence[str]) -> list[str]:
    """Names that tell things apart: one that comes again gets its number."""
    times: Counter[str] = Counter()
    found = []
    for name in names:
        times[name] += 1
        found.append(name if times[name] == 1 else f"{name} ({times[name]})")
    return found


def _folded(names: Sequence[str]) -> frozenset[str]:
    return frozenset(map(str.casefold, names))
