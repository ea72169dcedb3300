"""MSCOCO as its publisher ships it: `train2017/`, `val2017/` and `annotations/captions_*.json`.

The 2014 layout is read the same way. The publisher keeps the test captions to itself, so test means
validation here, unless Karpathy's `dataset_coco.json` lies beside the images.
"""

import re
from pathlib import Path

from corpora.problems import CorpusError, Problems
from corpora.readers.karpathy import Entry, entries, find_karpathy
from corpora.readers.reading import caption, find_file, json_object
from corpora.readers.rows import Listing, Row, image_folder
from corpora.splits import resolve, split_name

LAYOUT = "train2017/, val2017/ and annotations/captions_train2017.json, captions_val2017.json"
PARENTS = ("", "images/")  # where the image folders lie


def load_coco(directory: Path, split: str, problems: Problems) -> Listing:
    """Rows of one split; the key is the COCO id, the same in 2014, 2017 and Karpathy's file.

    Raises CorpusError if captions or images of the split aren't there.
    """
    if file := find_karpathy(directory, "coco"):
        members, others = entries(file, split, problems)
        rows = [_karpathy_row(directory, entry) for entry in members]
        return Listing(rows, [_karpathy_row(directory, entry).path for entry in others])
    parts, year = _annotations(directory)
    wanted = resolve(split, parts, f"{directory}/annotations (captions_*{year}.json)")
    names, captions = _captions(parts[wanted], problems)
    published = {"train": "train", "validation": "val", "test": "test"}[wanted]
    folders = [f"{parent}{published}{year}" for parent in PARENTS]
    folder = image_folder(directory, folders, names.values())
    rows = [
        Row(_key(identity), folder / name, tuple(captions[identity]))
        for identity, name in names.items()
        if identity in captions
    ]
    return Listing(rows, _held_out(directory, year) if wanted == "train" else ())


def _annotations(directory: Path) -> tuple[dict[str, Path], str]:
    """The captions files by split, all of one year: train2014 and val2017 must not meet."""
    found: dict[str, dict[str, Path]] = {}
    for file in sorted((directory / "annotations").glob("captions_*.json")):
        match = re.fullmatch(r"captions_([a-z]+)(\d*)\.json", file.name)
        if match and (split := split_name(match[1])):
            found.setdefault(match[2], {})[split] = file
    if not found:
        raise CorpusError(
            f"{directory}: no annotations/captions_*.json; expected {LAYOUT}; unpack COCO's "
            "annotations_trainval2017.zip there"
        )
    year = min(found, key=lambda year: (not _has_images(directory, year), year != "2017", year))
    return found[year], year


def _has_images(directory: Path, year: str) -> bool:
    return any(
        (directory / f"{parent}{part}{year}").is_dir()
        for parent in PARENTS
        for part in ("train", "val")
    )


def _held_out(directory: Path, year: str) -> list[Path]:
    """The images of the publisher's other splits, as far as they are on disk."""
    folders = [
        directory / f"{parent}{part}{year}" for parent in PARENTS for part in ("val", "test")
    ]
    return [file for folder in folders if folder.is_dir() for file in sorted(folder.iterdir())]


def _captions(file: Path, problems: Problems) -> tuple[dict[int, str], dict[int, list[str]]]:
    """File names and captions by COCO id."""
    content = json_object(file)
    names: dict[int, str] = {}
    for number, image in enumerate(content.get("images") or ()):
        image = image if isinstance(image, dict) else {}
        identity, name = image.get("id"), image.get("file_name")
        if isinstance(identity, int) and isinstance(name, str) and caption(name):
            names[identity] = name
        else:
            problems.add(file, None, f"image {number} has no id or no file_name")
    captions: dict[int, list[str]] = {}
    for number, annotation in enumerate(content.get("annotations") or ()):
        annotation = annotation if isinstance(annotation, dict) else {}
        identity, text = annotation.get("image_id"), caption(annotation.get("caption"))
        if isinstance(identity, int) and identity in names and text:
            captions.setdefault(identity, []).append(text)
        else:
            problems.add(file, None, f"annotation {number} has no known image_id or no caption")
    return names, captions


def _karpathy_row(directory: Path, entry: Entry) -> Row:
    of_2017 = [f"{parent}{part}2017" for parent in PARENTS for part in ("val", "train")]
    places = [f"{parent}{entry.folder}" for parent in PARENTS]
    path = (
        find_file(directory, [entry.name], places)
        or find_file(directory, [f"{entry.identity or 0:012d}.jpg"], of_2017)
        or directory / entry.folder / entry.name
    )
    return Row(_key(entry.identity or entry.name), path, entry.captions)


def _key(identity: int | str) -> str:
    return f"{identity:012d}" if isinstance(identity, int) else identity
