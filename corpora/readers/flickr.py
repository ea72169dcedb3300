"""Flickr8k and Flickr30k as their publishers ship them: a captions file and a folder of images.

Both come in several archives that differ in the captions file and the folder's name; each format
has a small parser here that reports the lines it can't use and goes on.
"""

from collections.abc import Iterator
from pathlib import Path

from corpora.problems import CorpusError, Problems
from corpora.readers.karpathy import entries, find_karpathy
from corpora.readers.reading import caption, find_file, lines
from corpora.readers.rows import Listing, Row, image_folder, rows_of
from corpora.splits import resolve

LAYOUT_30K = "results.csv (or results_20130124.token) and flickr30k_images/"
LAYOUT_8K = "Flickr8k.token.txt (or captions.txt) and Flicker8k_Dataset/ (or Images/)"
IMAGES_30K = (
    "flickr30k_images",
    "flickr30k_images/flickr30k_images",
    "flickr30k-images",
    "images",
    "Images",
    "",
)
IMAGES_8K = (
    "Flicker8k_Dataset",
    "Flicker8k_Dataset/Flicker8k_Dataset",
    "Flickr8k_Dataset",
    "Flickr8k_Dataset/Flicker8k_Dataset",
    "Flickr8k_Dataset/Flickr8k_Dataset",
    "Images",
    "images",
    "",
)
# Test first: an image that a damaged list names twice stays held out.
SPLIT_FILES = {
    "test": "Flickr_8k.testImages.txt",
    "validation": "Flickr_8k.devImages.txt",
    "train": "Flickr_8k.trainImages.txt",
}


def load_flickr30k(directory: Path, split: str, problems: Problems) -> Listing:
    """Rows of one split: Karpathy's if his file is there, else by a hash (see `corpora.splits`).

    Raises CorpusError if captions or images aren't there.
    """
    if file := find_karpathy(directory, "flickr30k"):
        return _karpathy_rows(directory, file, split, IMAGES_30K, problems)
    names = ("results.csv", "results_20130124.token")
    file = find_file(directory, names, ("", "flickr30k_images"))
    if file is None:
        raise CorpusError(f"{directory}: no {names[0]}; expected {LAYOUT_30K}")
    parse = _piped if file.suffix == ".csv" else _token
    captions = _grouped(file, parse(file, problems), LAYOUT_30K)
    folder = image_folder(directory, IMAGES_30K, captions)
    return Listing(rows_of(captions, captions, folder), ours=split)


def load_flickr8k(directory: Path, split: str, problems: Problems) -> Listing:
    """Rows of one split: Karpathy's, the publisher's (`Flickr_8k.*Images.txt`), else by a hash.

    Raises CorpusError if captions or images aren't there.
    """
    if file := find_karpathy(directory, "flickr8k"):
        return _karpathy_rows(directory, file, split, IMAGES_8K, problems)
    names = ("Flickr8k.token.txt", "captions.txt")
    file = find_file(directory, names, ("", "Flickr8k_text"))
    if file is None:
        raise CorpusError(f"{directory}: no {names[0]}; expected {LAYOUT_8K}")
    parse = _token if file.name == names[0] else _comma
    captions = _grouped(file, parse(file, problems), LAYOUT_8K)
    folder = image_folder(directory, IMAGES_8K, captions)
    found = _publishers_split(directory, split, problems)
    if found is None:
        return Listing(rows_of(captions, captions, folder), ours=split)
    members, held_out = found
    return Listing(rows_of(captions, members, folder), [folder / name for name in held_out])


def _token(file: Path, problems: Problems) -> Iterator[tuple[str, str]]:
    """`name.jpg#0<TAB>caption`."""
    for number, line in lines(file, problems):
        label, tab, text = line.partition("\t")
        name, mark, _ = label.rpartition("#")
        said = caption(text)
        if not (tab and mark and name and said):
            problems.add(file, number, f"not `name.jpg#0<TAB>caption`: {line[:60]!r}")
        else:
            yield name.strip(), said


def _piped(file: Path, problems: Problems) -> Iterator[tuple[str, str]]:
    """`name.jpg| 0| caption`, with a header; the caption may hold further pipes."""
    for number, line in lines(file, problems):
        name, *rest = line.split("|", 2)
        if number == 1 and name.strip() == "image_name":
            continue
        said = caption(rest[1]) if len(rest) == 2 else None
        if not (name.strip() and said):
            problems.add(file, number, f"not `name.jpg| 0| caption`: {line[:60]!r}")
        else:
            yield name.strip(), said


def _comma(file: Path, problems: Problems) -> Iterator[tuple[str, str]]:
    """`name.jpg,caption`, with a header; the caption is quoted if it holds commas or quotes."""
    for number, line in lines(file, problems):
        name, comma, text = line.partition(",")
        if number == 1 and name.strip() == "image":
            continue
        text = text.strip()
        if len(text) > 1 and text[0] == text[-1] == '"':
            text = text[1:-1].replace('""', '"')
        said = caption(text)
        if not (comma and name.strip() and said):
            problems.add(file, number, f"not `name.jpg,caption`: {line[:60]!r}")
        else:
            yield name.strip(), said


def _grouped(file: Path, pairs: Iterator[tuple[str, str]], layout: str) -> dict[str, list[str]]:
    captions: dict[str, list[str]] = {}
    for name, text in pairs:
        captions.setdefault(name, []).append(text)
    if not captions:
        raise CorpusError(f"{file}: no line holds a caption; expected {layout}, as published")
    return captions


def _publishers_split(
    directory: Path, split: str, problems: Problems
) -> tuple[list[str], list[str]] | None:
    """The names of one split, and for train those held out; None if there are no split files."""
    found = {
        name: path
        for name, published in SPLIT_FILES.items()
        if (path := find_file(directory, [published], ["", "Flickr8k_text"]))
    }
    if not found:
        return None
    wanted = resolve(split, found, f"{directory} (Flickr_8k.*Images.txt)")
    side: dict[str, str] = {}
    for name, path in found.items():
        for number, line in lines(path, problems):
            if side.setdefault(line.strip(), name) != name:
                problems.add(path, number, f"{line.strip()} is in {side[line.strip()]} already")
    members = [image for image, name in side.items() if name == wanted]
    others = [image for image, name in side.items() if name != wanted]
    return members, others if wanted == "train" else []


def _karpathy_rows(
    directory: Path, file: Path, split: str, folders: tuple[str, ...], problems: Problems
) -> Listing:
    members, others = entries(file, split, problems)
    if not members:
        return Listing([])
    folder = image_folder(directory, folders, [member.name for member in members])
    rows = [Row(member.name, folder / member.name, member.captions) for member in members]
    return Listing(rows, [folder / other.name for other in others])
