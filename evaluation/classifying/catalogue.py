"""The data sets that have a name here: where they are, what their columns, classes, templates are.

One row each. The Hugging Face data sets that the hub names lead to are mirrors by other people; a
local copy, in the hub's layout or as directories of images, can stand in for any of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from compress.errors import UserError
from corpora.labelled import Columns, Names
from evaluation.classifying.packages import benchmark_names, imagenet_names
from evaluation.classifying.published_names import CIFAR10, CIFAR100, IMAGENETTE, in_words

Published = Sequence[str] | None
"""What the publisher calls each class, where labels aren't numbers alone."""
NameClasses = Callable[[Published], Names | Mapping[str, tuple[str, ...]] | None]
"""The names of classes, by number or by published name; None: the published ones, in words."""


@dataclass(frozen=True)
class Known:
    """A data set that has a name here.

    Attributes:
        hub: OWNER/NAME[@CONFIG] on the hub; None where no mirror is known.
        split: that accuracies are published on.
        names: of the classes.
        templates: name of the set of templates.
        columns: as the hub's mirror has them.
        source: where the publisher has it.
    """

    hub: str | None
    split: str
    names: NameClasses
    templates: str
    columns: Columns = Columns()  # noqa: RUF009  (frozen)
    source: str = ""


def _single(names: Sequence[str]) -> Names:
    return tuple((name,) for name in names)


def _imagenette(published: Published) -> Mapping[str, tuple[str, ...]] | Names | None:
    """By the directories of the archive, which are WordNet's numbers, or already in words."""
    if published is None:
        return _single(list(IMAGENETTE.values()))
    if set(published) <= set(IMAGENETTE):
        return {number: (name,) for number, name in IMAGENETTE.items()}
    return None


def _caltech101(published: Published) -> Mapping[str, tuple[str, ...]] | Names:
    """clip-benchmark's names, which come in the alphabetical order of the published ones."""
    names = benchmark_names("caltech101_vtab")
    if published is None:
        return _single(names)
    if len(published) == len(names) - 1:
        names = tuple(name for name in names if name != "background")
    if len(published) != len(names):
        raise UserError(
            f"caltech101: {len(published)} classes, expected 101 or 102: pass --classes FILE"
        )
    ordered = sorted(published, key=str.lower)
    return {own: (name,) for own, name in zip(ordered, names, strict=True)}


KNOWN = {
    "cifar10": Known(
        "uoft-cs/cifar10", "test", lambda _: _single(CIFAR10), "cifar", Columns("img", "label")
    ),
    "cifar100": Known(
        "uoft-cs/cifar100", "test", lambda _: _single(CIFAR100), "cifar",
        Columns("img", "fine_label"),
    ),
    "imagenette": Known("frgfm/imagenette@320px", "validation", _imagenette, "imagenet"),
    "natural-images": Known(
        None, "validation", lambda _: None, "photo",
        source="https://www.kaggle.com/datasets/prasunroy/natural-images",
    ),
    "caltech101": Known("flwrlabs/caltech101", "test", _caltech101, "caltech101"),
    "caltech256": Known(
        "ilee0022/Caltech-256", "test", lambda _: None, "photo", Columns(name="text")
    ),
    "imagenet1k": Known(
        "ILSVRC/imagenet-1k", "validation", lambda _: _single(imagenet_names()), "imagenet"
    ),
}  # fmt: skip


def names_in_words(published: Sequence[str]) -> Names:
    """The published names as words."""
    return _single([in_words(name) for name in published])
