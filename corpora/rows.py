"""One image with its captions, and the step from a list of them to a Hugging Face dataset.

The parser of each corpus makes rows; here those whose image is on disk become a
`datasets.Dataset`, the one shape in which everything above this folder sees a corpus.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset, Features, Image, List, Value

from corpora.problems import CorpusError, Problems

FEATURES = Features({"image": Image(), "captions": List(Value("string")), "key": Value("string")})


@dataclass(frozen=True)
class Row:
    """An image of a corpus: its key, the path of its file and what people wrote about it."""

    key: str
    path: Path
    captions: tuple[str, ...]


def rows_of(captions: dict[str, list[str]], names: Iterable[str], folder: Path) -> list[Row]:
    """Rows, in the order of `names`, of the images that have captions; the key is the file name."""
    return [Row(name, folder / name, tuple(captions[name])) for name in names if name in captions]


def image_folder(directory: Path, candidates: Iterable[str], names: Iterable[str]) -> Path:
    """The candidate folder in which most of the named images lie.

    An archive that was unpacked into a folder of its own name nests; that's why the folder is
    chosen by what is in it. Raises CorpusError if none holds any of the images.
    """
    candidates, names = tuple(candidates), set(names)
    folders = [directory / candidate for candidate in candidates]
    present = {
        folder: len(names.intersection(os.listdir(folder))) for folder in folders if folder.is_dir()
    }
    if not any(present.values()):
        tried = ", ".join(f"{candidate or '.'}/" for candidate in candidates)
        raise CorpusError(
            f"{directory}: none of the {len(names):,} images that the captions name was found; "
            f"looked in {tried}; unpack the images into one of these"
        )
    return max(present, key=present.get)


def dataset_of(rows: list[Row], problems: Problems) -> Dataset:
    """Rows as a dataset with columns image, captions and key; images on disk aren't opened.

    Rows whose image isn't on disk are left out, counted and reported. The dataset is empty if
    none is left.
    """
    here = [row for row in rows if os.path.isfile(row.path)]
    if len(here) < len(rows):
        first = next(row.path for row in rows if not os.path.isfile(row.path))
        problems.count_missing(len(rows) - len(here), len(rows), first)
    columns = {
        "image": [os.path.abspath(row.path) for row in here],
        "captions": [list(row.captions) for row in here],
        "key": [row.key for row in here],
    }
    return Dataset.from_dict(columns, features=FEATURES)
