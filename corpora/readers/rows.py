"""One image with its captions, and the step from a list of them to a Hugging Face dataset.

The parser of each corpus lists rows; here those whose image is on disk become a
`datasets.Dataset`, the one shape in which everything above this folder sees a corpus. Rows that
show the same picture become one, and none is on both sides of a split.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from datasets import Dataset, Features, List, Value

from corpora.column import UprightImage
from corpora.decoding.files import kind_of
from corpora.problems import CorpusError, Problems
from corpora.readers.identity import same_files, united
from corpora.splits import hashed

FEATURES = Features(
    {"image": UprightImage(), "captions": List(Value("string")), "key": Value("string")}
)


@dataclass(frozen=True)
class Row:
    """An image of a corpus: its key, the path of its file and what people wrote about it."""

    key: str
    path: Path
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Listing:
    """What a parser found: the rows of a split of the publisher's, or of a corpus without splits.

    `held_out` are the images that must not be in the split: for train, those of the publisher's
    other splits. `ours` is the split to choose by hash where the publisher has none. With
    `captioned` rows without a caption are left out in the end.
    """

    rows: Sequence[Row]
    held_out: Sequence[Path] = ()
    ours: str | None = None
    captioned: bool = False


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
    return max(present, key=present.__getitem__)


def dataset_of(listing: Listing, directory: Path, problems: Problems) -> Dataset:
    """A listing as a dataset with columns image, captions and key; no image is decoded.

    Rows that show the same picture are put together. Rows whose image lies outside of the
    directory, isn't on disk or is held out are left out and reported. The dataset is empty if none
    is left.
    """
    rows = [row for row in listing.rows if lies_inside(row, directory, problems)]
    identities = same_files([row.path for row in rows] + list(listing.held_out))
    own, held_out = identities[: len(rows)], set(identities[len(rows) :])
    groups = united([row.key for row in rows], own)
    if held_out:
        shared = [group for group in groups if any(own[row] in held_out for row in group)]
        problems.say_shared(len(shared), rows[shared[0][0]].key if shared else "")
        groups = [group for group in groups if not any(own[row] in held_out for row in group)]
    rows = _joined([[rows[row] for row in group] for group in groups], problems)
    if listing.ours:
        members = set(hashed([row.key for row in rows], listing.ours))
        rows = [row for row in rows if row.key in members]
    if listing.captioned:
        rows = [row for row in rows if row.captions]
    here = on_disk(rows, problems)
    columns = {
        "image": [os.path.abspath(row.path) for row in here],
        "captions": [list(row.captions) for row in here],
        "key": [row.key for row in here],
    }
    return Dataset.from_dict(columns, features=FEATURES)


def inside(path: str | os.PathLike[str], directory: str | os.PathLike[str]) -> bool:
    """Whether a path, as it is written, leads into a directory; links are not followed."""
    path, directory = (os.path.normpath(os.path.abspath(place)) for place in (path, directory))
    return path.startswith(os.path.join(directory, ""))


def chosen_key(keys: Iterable[str]) -> str:
    """The key of a picture that has several: the shortest, whatever order they come in."""
    return min(keys, key=lambda key: (len(key), key))


def lies_inside(row: Row, directory: Path, problems: Problems) -> bool:
    """Whether a row's image lies in its directory, as it is written; reported if it doesn't."""
    if inside(row.path, directory) and "\0" not in row.key:
        return True
    problems.add(directory, None, f"the file name {row.key!r} leads outside of it, left out")
    return False


def _joined(groups: list[list[Row]], problems: Problems) -> list[Row]:
    """One row for each group of rows that show the same picture."""
    joined = []
    copies = []
    for group in groups:
        key = chosen_key(row.key for row in group)
        first = next(row for row in group if row.key == key)
        captions = tuple(text for row in group for text in row.captions)
        joined.append(replace(first, captions=captions))
        copies += [(row.key, key) for row in group if not _same_spelling(row.path, first.path)]
    if copies:
        copy, key = copies[0]
        problems.say(
            f"{len(copies):,} files are copies of others and were put together with these (first: "
            f"{copy} is {key})"
        )
    return joined


def _same_spelling(one: Path, other: Path) -> bool:
    return os.path.normpath(one) == os.path.normpath(other)


def on_disk(rows: Sequence[Row], problems: Problems) -> list[Row]:
    """The rows whose image is an ordinary file; the others are reported."""
    here, missing = [], []
    for row in rows:
        try:
            kind = kind_of(os.stat(row.path).st_mode)
        except (OSError, ValueError):
            missing.append(row)
            continue
        if kind:
            problems.add(row.path, None, f"is {kind}, not a file; left out")
        else:
            here.append(row)
    if missing:
        problems.count_missing(len(missing), len(rows), missing[0].path)
    return here
