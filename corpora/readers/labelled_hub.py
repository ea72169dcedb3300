"""A labelled data set of the Hugging Face hub, or a local directory in the hub's layout.

The columns are those that the caller names, or else found: the image by its type, the label by the
names in use.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath

from datasets import ClassLabel, Dataset, DatasetDict, Image, Value

from corpora.column import UprightImage
from corpora.problems import CorpusError, Problems
from corpora.readers.labels import Labelled, chosen_split, numbered, with_label
from corpora.readers.published import image_column, loaded, paths_of, usable_rows
from corpora.splits import split_name

LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "cls", "category", "target")


@dataclass(frozen=True)
class Columns:
    """What a publisher calls the columns: image, label, and the class's name in words.

    Where one isn't there, or None, it is found as in any other data set.
    """

    image: str | None = None
    label: str | None = None
    name: str | None = None


def load_labelled_hub(source: str, split: str, problems: Problems, columns: Columns) -> Labelled:
    """One split; the key is the publisher's split and the image's file, or the number of its row.

    Raises:
        CorpusError: the data set can't be loaded, or has no images, labels or such split.
    """
    choose = partial(_part, split=split, source=source, problems=problems)
    # a column of names is read in all splits, since one may lack a class
    published = loaded(source, None if columns.name else choose)
    part = choose(tuple(published)) if len(published) > 1 else next(iter(published))
    where = f"{source} ({part})"
    whole = published[part]
    label = label_column(whole, columns.label, source)
    image = columns.image if columns.image in whole.features else image_column(whole, source)
    images = whole.select_columns(image).cast_column(image, Image(decode=False))
    if image != "image":
        images = images.rename_column(image, "image")
    feature, values = whole.features[label], list(whole[label])
    usable = usable_rows([images], source, problems)
    rows = [row for row in with_label(values, where, problems) if usable[row]]
    if not rows:
        raise CorpusError(f"{where}: no image is left; the warnings say why")
    found, names = numbered([values[row] for row in rows], where)
    if isinstance(feature, ClassLabel):
        names = tuple(feature.names)
    elif names is None and columns.name in whole.features:
        names = _names_by_label(published, label, str(columns.name), source)
    labels = dict(zip(rows, found, strict=True))
    every = range(len(images))  # adding to a selection would copy the images
    images = images.add_column(
        "label", [labels.get(row, -1) for row in every], feature=Value("int64")
    )
    images = images.add_column("key", _keys(images, part), feature=Value("string"))
    images = images.cast_column("image", UprightImage())
    return Labelled(images if len(rows) == len(images) else images.select(rows), names)


def label_column(part: Dataset, named: str | None, source: str) -> str:
    """The column that holds one class for each image.

    Raises:
        CorpusError: none does.
    """
    known = {name.lower(): name for name in part.column_names}
    candidates = [name for name in (named, *LABEL_COLUMNS) if name in known]
    if not candidates:
        raise CorpusError(
            f"{source}: no labels (columns: {', '.join(part.column_names)}); expected one of "
            f"{', '.join(LABEL_COLUMNS)}"
        )
    column: str = known[str(candidates[0])]
    feature = part.features[column]
    whole = isinstance(feature, Value) and feature.dtype.startswith(("int", "uint", "string"))
    if not (whole or isinstance(feature, ClassLabel)):
        raise CorpusError(
            f"{source}: the column {column} holds {feature}; expected one class for each image"
        )
    return column


def _part(published: Sequence[str], split: str, source: str, problems: Problems) -> str:
    """The publisher's name of the split to take."""
    ours = {name: split_name(name) or name for name in published}
    where = f"{source} ({', '.join(published)})"
    wanted = chosen_split(split, tuple(ours.values()), where, problems)
    return next(name for name, own in ours.items() if own == wanted)


def _names_by_label(published: DatasetDict, label: str, name: str, source: str) -> tuple[str, ...]:
    """What a column of all splits calls each class."""
    names: dict[int, str] = {}
    for part in published.values():
        for number, text in zip(part[label], part[name], strict=True):
            names.setdefault(number, text)
    for number in range(max(names) + 1):
        if not isinstance(names.get(number), str):
            raise CorpusError(f"{source}: the column {name} gives no name for class {number}")
    return tuple(names[number] for number in range(max(names) + 1))


def _keys(images: Dataset, part: str) -> Sequence[str]:
    files = [PurePath(path).name if path else "" for path in paths_of(images)]
    if "" in files or len(set(files)) < len(files):
        files = [f"{row:07d}" for row in range(len(files))]
    return [f"{part}/{file}" for file in files]
