"""A folder of labelled images: a directory for each class, or `metadata.jsonl` with `label`.

Sub-directories `train/`, `validation/` (`val/`), `test/` are the splits; a folder without them is
taken whole. In each lie directories of images, one for each class and called what the publisher
calls it, or the images and `metadata.jsonl`, a JSON object a line with `file_name` and `label` (a
number from 0, or a name). `classes.json` beside these says what the classes are called.
"""

import json
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Value

from corpora.column import UprightImage
from corpora.problems import CorpusError, Problems
from corpora.readers.class_names import CLASSES, fitted, read_class_names
from corpora.readers.folder import METADATA, parts_of
from corpora.readers.labels import Labelled, chosen_split, numbered, with_label
from corpora.readers.reading import lines
from corpora.readers.rows import Row, lies_inside, on_disk
from corpora.readers.walking import walk

LAYOUT = f"a directory of images for each class, or {METADATA} with file_name and label"
FEATURES = Features({"image": UprightImage(), "label": Value("int64"), "key": Value("string")})


def load_labelled_folder(directory: Path, split: str, problems: Problems) -> Labelled:
    """One split of a folder; the key is the image's path in the directory, as in "val/cat/1.jpg".

    Raises:
        CorpusError: there is no such split, or it holds no images, labels or classes.
    """
    labels: dict[str, object] = {}
    rows: list[Row] = []
    for folder in _folders(directory, split, problems):
        listed = _described if (folder / METADATA).is_file() else _sorted
        for name, label in listed(folder, problems).items():
            path = folder / name
            rows.append(Row(path.relative_to(directory).as_posix(), path, ()))
            labels[rows[-1].key] = label
    rows = on_disk([row for row in rows if lies_inside(row, directory, problems)], problems)
    if not rows:
        raise CorpusError(f"{directory}: no labelled images; expected {LAYOUT}")
    rows = [rows[at] for at in with_label((labels[row.key] for row in rows), directory, problems)]
    numbers, published = numbered([labels[row.key] for row in rows], directory)
    file = directory / CLASSES
    names = fitted(read_class_names(file), published, file) if file.is_file() else None
    columns = {
        "image": [str(row.path.absolute()) for row in rows],
        "label": numbers,
        "key": [row.key for row in rows],
    }
    return Labelled(Dataset.from_dict(columns, features=FEATURES), published, names)


def _folders(directory: Path, split: str, problems: Problems) -> list[Path]:
    """Where the images of a split lie: train may be in several folders."""
    parts = parts_of(directory)
    inside = {part for several in parts.values() for part in several}
    if not parts or (directory / METADATA).is_file():
        return [directory]
    beside = walk(directory, {part.name for part in inside}).images
    if any("/" in name for name in beside):  # "train" is a class like the others
        return [directory]
    return parts[chosen_split(split, tuple(parts), directory, problems)]


def _sorted(folder: Path, problems: Problems) -> dict[str, object]:
    """The images in directories of classes, each with its class."""
    found = walk(folder, {CLASSES})
    if said := found.said(folder):
        problems.say(said)
    labels: dict[str, object] = {}
    loose = []
    for name in found.images:
        label, _, rest = name.partition("/")
        if rest:
            labels[name] = label
        else:
            loose.append(name)
    if loose:
        problems.say(
            f"{folder}: {len(loose):,} images in no class's directory are left out (first: "
            f"{loose[0]})"
        )
    return labels


def _described(folder: Path, problems: Problems) -> dict[str, object]:
    """The images that the metadata names, each with its label."""
    labels: dict[str, object] = {}
    file = folder / METADATA
    for number, line in lines(file, problems):
        try:
            entry: Any = json.loads(line)
        except (ValueError, RecursionError) as error:
            problems.add(file, number, f"not JSON that can be read ({error})")
            continue
        name = entry.get("file_name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name.strip():
            problems.add(file, number, "no file_name")
        elif labels.setdefault(name, entry.get("label")) != entry.get("label"):
            problems.add(file, number, f"another label for {name}, which has one already")
    return labels
