"""Karpathy's splits of coco, flickr30k and flickr8k, with the captions that go with them.

When the field reports "flickr30k 1K test" or "coco 5K test" it means these files
(`dataset_coco.json` and so on, https://cs.stanford.edu/people/karpathy/deepimagesent), so one that
lies in a corpus directory goes before the publisher's own split.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpora.problems import CorpusError, Problems
from corpora.readers.reading import caption, find_file, json_object
from corpora.splits import resolve, split_name


@dataclass(frozen=True)
class Entry:
    """An image of a Karpathy file: `folder` and `identity` (its COCO id) are coco's only."""

    name: str
    folder: str
    identity: int | None
    captions: tuple[str, ...]


def find_karpathy(directory: Path, corpus: str) -> Path | None:
    """The corpus's Karpathy file, if it lies in the directory or its `annotations/`."""
    return find_file(directory, [f"dataset_{corpus}.json"], ["", "annotations"])


def entries(file: Path, split: str, problems: Problems) -> tuple[list[Entry], list[Entry]]:
    """The images of one split in file order, and for train those that are held out of it.

    Train holds Karpathy's train and restval. Images and captions that can't be used are reported.
    Raises CorpusError if the file can't be read or has no such split.
    """
    images = json_object(file).get("images")
    if not isinstance(images, list):
        raise CorpusError(f"{file}: has no list under 'images'; is it Karpathy's split file?")
    members = [image if isinstance(image, dict) else {} for image in images]
    available = {name for member in members if (name := split_name(member.get("split")))}
    wanted = resolve(split, available, file)
    chosen = [
        (number, member)
        for number, member in enumerate(members)
        if split_name(member.get("split")) in (wanted, None)
    ]
    others = [
        (number, member)
        for number, member in enumerate(members)
        if wanted == "train" and split_name(member.get("split")) in ("validation", "test")
    ]
    return list(_usable(file, chosen, problems)), list(_usable(file, others, Problems()))


def _usable(
    file: Path, chosen: list[tuple[int, dict[str, Any]]], problems: Problems
) -> Iterator[Entry]:
    for number, member in chosen:
        name, sentences = member.get("filename"), member.get("sentences")
        known = split_name(member.get("split")) is not None
        if not known or not isinstance(name, str) or caption(name) is None:
            problems.add(file, None, f"image {number} has no known split or no filename")
            continue
        sentences = sentences if isinstance(sentences, list) else []
        texts = [s.get("raw") for s in sentences if isinstance(s, dict)]
        folder, identity = member.get("filepath"), member.get("cocoid")
        captions = tuple(text for text in map(caption, texts) if text)
        if not captions:
            problems.add(file, None, f"image {number} ({name}) has no caption")
            continue
        folder = folder if isinstance(folder, str) else ""
        yield Entry(name, folder, identity if isinstance(identity, int) else None, captions)
