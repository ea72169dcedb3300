"""What a labelled data set is: images, the class of each, and what the classes are called.

Between the readers of labelled folders and hub data sets and `corpora.labelled`. Zero-shot
classification trains on nothing, so a data set without splits is taken whole, and pictures that
come twice stay twice, as published accuracies count them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from datasets import Dataset

from corpora.problems import CorpusError, Problems
from corpora.splits import resolve

Names = tuple[tuple[str, ...], ...]
"""The names of each class, by its number; a class may have several, which mean the same."""

UNLABELLED = (None, -1)
"""What stands for the label of an image that has none: ImageNet's test split has −1."""


@dataclass(frozen=True)
class Labelled:
    """Images with a class each.

    Attributes:
        images: columns image, label (int, from 0) and key.
        published: what the publisher calls each class (a directory, an entry of `ClassLabel`), by
            its number; None where classes are numbers alone.
        names: what `classes.json` beside the images calls them; None where there is none.
    """

    images: Dataset
    published: tuple[str, ...] | None
    names: Names | None = None


def chosen_split(split: str, available: Sequence[str], where: object, problems: Problems) -> str:
    """The split to take of those there are: as `resolve`, but a single one is taken whatever it is.

    Raises:
        CorpusError: there are several, and none of them is held out.
    """
    if len(available) == 1:
        (only,) = available
        if only != split and "train" in (only, split):
            problems.say(f"{where} has no split but {only}: all of its images are taken")
        return only
    return resolve(split, available, where)


def with_label(labels: Iterable[object], where: object, problems: Problems) -> list[int]:
    """Which rows have a label; the others are counted and said.

    Raises:
        CorpusError: no row has one.
    """
    labels = list(labels)
    kept = [row for row, label in enumerate(labels) if label not in UNLABELLED]
    if not kept:
        raise CorpusError(
            f"{where}: none of its {len(labels):,} images has a label; choose a labelled split"
        )
    if len(kept) < len(labels):
        problems.say(f"{where}: {len(labels) - len(kept):,} images have no label and are left out")
    return kept


def numbered(labels: Sequence[object], where: object) -> tuple[list[int], tuple[str, ...] | None]:
    """Labels as numbers from 0, and the classes' names where the labels were names.

    Raises:
        CorpusError: labels are neither all whole numbers nor all text, or one is negative.
    """
    if all(isinstance(label, str) and label.strip() for label in labels):
        published = tuple(sorted({str(label) for label in labels}))
        places = {name: number for number, name in enumerate(published)}
        return [places[str(label)] for label in labels], published
    for label in labels:
        if not isinstance(label, int) or isinstance(label, bool) or label < 0:
            raise CorpusError(
                f"{where}: {label!r} is no label; expected whole numbers from 0, or names alone"
            )
    return [label for label in labels if isinstance(label, int)], None
