"""Opening a data set by what the user wrote: its images, labels, class names and templates.

`scenes`, a name of `catalogue.KNOWN`, `NAME:DIR` for a local copy of one, `folder:DIR`,
`hub:OWNER/NAME` or `hub:DIR`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from commands.published import published_corpus
from compress.errors import UserError
from corpora import drop_unreadable
from corpora.labelled import Columns, Labelled, Names, fitted, load_labelled, read_class_names
from corpora.splits import checked
from evaluation.classifying.catalogue import KNOWN, Known, names_in_words
from evaluation.classifying.scenes import scene_tasks
from evaluation.classifying.tasks import Task, TaskSet, alike, distinct
from evaluation.classifying.templates import PHOTO, templates_of


@dataclass(frozen=True)
class Wanted:
    """What is asked of every data set; None where the data set's own choice is taken.

    Attributes:
        split: train, validation or test.
        images: at most so many, drawn by the seed.
        seed: of that draw.
        classes: a file of class names.
        templates: a file of templates, or the name of a set.
    """

    split: str | None = None
    images: int | None = None
    seed: int = 0
    classes: Path | None = None
    templates: str | None = None


def open_data_sets(names: Sequence[str], wanted: Wanted) -> list[TaskSet]:
    """The data sets with their tasks, whose names tell them apart.

    Raises:
        UserError: a data set isn't known, class names and labels don't fit, or templates are wrong.
        CorpusError: a data set can't be loaded.
    """
    checked(wanted.split)
    given = templates_of(wanted.templates) if wanted.templates else None
    written = list(dict.fromkeys(names))
    called = distinct([published_corpus(name) for name in written])
    found = [_open(name, shown, wanted) for name, shown in zip(written, called, strict=True)]
    if given is None:
        return found
    return [_with(data, given) for data in found]


def drawn(wanted: Wanted, images: int) -> Sequence[int]:
    """The places of the images to take, in their order: all, or as many as wanted."""
    if wanted.images is None or wanted.images >= images:
        return range(images)
    generator = torch.Generator().manual_seed(wanted.seed)
    chosen: list[int] = torch.randperm(images, generator=generator)[: wanted.images].tolist()
    return sorted(chosen)


def _open(name: str, shown: str, wanted: Wanted) -> TaskSet:
    if name == "scenes":
        return scene_tasks(shown, wanted.split or "validation", partial(drawn, wanted))
    kind, _, place = name.partition(":")
    known = KNOWN.get(kind)
    split = wanted.split or (known.split if known else "validation")
    labelled = _labelled(name, known, place, split)
    classes, notes = _classes(shown, labelled, known, wanted.classes)
    images = labelled.images
    images, skipped = drop_unreadable(images.select(drawn(wanted, len(images))))
    if not len(images):
        raise UserError(f"{shown}: none of its {len(skipped):,} images can be read")
    task = Task(
        shown,
        torch.arange(len(images)),
        torch.tensor(images["label"][:]),
        classes,
        PHOTO if known is None or wanted.templates else templates_of(known.templates),
    )
    images = images.remove_columns("label")
    return TaskSet(shown, split, images, tuple(skipped), (task,), notes)


def _labelled(name: str, known: Known | None, place: str, split: str) -> Labelled:
    """The images of a data set that isn't scenes."""
    kind = name.partition(":")[0]
    if known is None:
        if kind == "folder" and place:
            return load_labelled("folder", place, split)
        if kind == "hub" and place:
            return load_labelled(name, None, split)
        if "/" in name and ":" not in name and not name.startswith((".", "/", "~")):
            return load_labelled(f"hub:{name}", None, split)
        raise UserError(
            f"no data set is called {name!r}; choose scenes, {', '.join(KNOWN)}, folder:DIR, "
            "hub:OWNER/NAME, or NAME:DIR for a local copy of a named one"
        )
    if place:
        return _local_copy(place, split, known.columns)
    if known.hub is None:
        raise UserError(
            f"{name}: no copy on the hub is known; fetch it from {known.source} and pass {name}:DIR"
        )
    return load_labelled(f"hub:{known.hub}", None, split, known.columns)


def _local_copy(place: str, split: str, columns: Columns) -> Labelled:
    """A copy of a named data set: in the hub's layout if it has tables of it, else a folder."""
    directory = Path(place).expanduser()
    tables = ("*.parquet", "*.arrow")
    if any(True for pattern in tables for _ in directory.rglob(pattern)):
        return load_labelled("hub", directory, split, columns)
    return load_labelled("folder", directory, split)


def _classes(
    shown: str, labelled: Labelled, known: Known | None, file: Path | None
) -> tuple[Names, tuple[str, ...]]:
    """The names of the classes: the user's, the data set's own as known here, or as published.

    Classes that share their names are the user's to mend; where a package has them so, as
    ImageNet's has two pairs, it is noted.
    """
    published = labelled.published
    names = known.names(published) if known and file is None else None
    if file is not None:
        classes = fitted(read_class_names(file), published, f"--classes {file}")
    elif names is not None:
        classes = fitted(names, published, f"the class names of {shown}")
    elif labelled.names is not None:
        classes = labelled.names
    elif published is not None:
        classes = names_in_words(published)
    else:
        raise UserError(
            f"{shown}: its labels are numbers and nothing says what they mean: pass --classes FILE"
        )
    shared = alike(classes)
    if not shared:
        return classes, ()
    what = f"{shown}: classes share their names, so no text tells them apart: {', '.join(shared)}"
    if names is None:
        raise UserError(f"{what}; pass --classes FILE with names that do")
    return classes, (f"{what}; their images count as wrong at top 1",)


def _with(found: TaskSet, templates: tuple[str, ...]) -> TaskSet:
    """The same tasks with other templates."""
    return replace(found, tasks=tuple(replace(task, templates=templates) for task in found.tasks))
