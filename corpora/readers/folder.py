"""A folder of your own images, with captions: Hugging Face's imagefolder with `metadata.jsonl`.

Each line is a JSON object with `file_name` and `captions` (a list; a single text under `caption` or
`text` does as well; a list may also be written out as text, "['a', 'b']"). Sub-directories
`train/`, `validation/`, `test/` are the splits, `train_0/` and `train_1/` together are train; a
folder without them is one set, split by a hash. Where no captions are asked for the metadata may be
left out: then the images are those that lie in the folder, however deep. What is passed over
(thumbnails, other kinds of files, images that nothing names) is counted and said. A `file_name`
must not lead out of the directory as it is written; links in it may lead anywhere.
"""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath

from corpora.problems import CorpusError, Problems
from corpora.readers.reading import caption, lines, texts
from corpora.readers.rows import Listing, Row
from corpora.readers.walking import walk
from corpora.splits import resolve, split_name

METADATA = "metadata.jsonl"
LAYOUT = f"{METADATA} with file_name and captions in it or in its train/, validation/, test/"
CAPTION_FIELDS = ("captions", "caption", "text")


def load_folder(directory: Path, split: str, problems: Problems) -> Listing:
    """Rows of one split; the key is the image's path in the directory, as in "train/1.jpg".

    Raises CorpusError if there is no metadata or no such split.
    """
    parts = {
        name: [part for part in folders if _has_metadata(part)]
        for name, folders in parts_of(directory).items()
    }
    parts = {name: folders for name, folders in parts.items() if folders}
    if not parts and not _has_metadata(directory):
        raise CorpusError(f"{directory}: no {METADATA}; expected {LAYOUT}{_other(directory)}")

    def listed(part: Path, problems: Problems) -> dict[str, list[str]]:
        captions = _captions(part / METADATA, problems)
        _say_unnamed(part, captions, problems)
        return captions

    listing = _listing(directory, parts, split, listed, problems)
    return replace(listing, captioned=True)


def load_images(directory: Path, split: str, problems: Problems) -> Listing:
    """Rows of one split as from `load_folder`, but captions, and metadata, may be missing.

    Raises CorpusError if there is no such split.
    """

    def listed(part: Path, problems: Problems) -> dict[str, list[str]]:
        if _has_metadata(part):
            captions = _captions(part / METADATA, problems, required=False)
            _say_unnamed(part, captions, problems)
            return captions
        found = walk(part, {METADATA})
        if said := found.said(part):
            problems.say(said)
        return {name: [] for name in found.images}

    parts = parts_of(directory)
    any_metadata = any(_has_metadata(part) for folders in parts.values() for part in folders)
    if any_metadata or not _has_metadata(directory):
        return _listing(directory, parts, split, listed, problems)
    return _listing(directory, {}, split, listed, problems)


def parts_of(directory: Path) -> dict[str, list[Path]]:
    """The sub-directories that are splits, by our names for these: train may be in several."""
    parts: dict[str, list[Path]] = {}
    for part in sorted(directory.iterdir()):
        if (name := split_name(part.name)) and part.is_dir():
            parts.setdefault(name, []).append(part)
    return parts


def _has_metadata(directory: Path) -> bool:
    return (directory / METADATA).is_file()


def _listing(
    directory: Path,
    parts: dict[str, list[Path]],
    split: str,
    listed: Callable[[Path, Problems], dict[str, list[str]]],
    problems: Problems,
) -> Listing:
    """Rows of one split, given its folders, if it has any, and what lists a folder's images."""
    if not parts:
        return _without_parts(directory, listed(directory, problems), split)
    wanted = resolve(split, parts, directory)
    _say_outside(directory, parts, problems)
    rows = [
        Row(f"{part.name}/{name}", part / name, tuple(texts))
        for part in parts[wanted]
        for name, texts in listed(part, problems).items()
    ]
    held_out = [
        part / name
        for other, folders in parts.items()
        for part in folders
        if wanted == "train" and other != wanted
        for name in listed(part, Problems())
    ]
    return Listing(rows, held_out)


def _without_parts(directory: Path, captions: dict[str, list[str]], split: str) -> Listing:
    """Rows by the first folder of each file name if that tells the split of all, else by hash."""
    rows = [Row(name, directory / name, tuple(texts)) for name, texts in captions.items()]
    sides = {name: split_name(next(iter(PurePosixPath(name).parts), None)) for name in captions}
    if not captions or None in sides.values():
        return Listing(rows, ours=split)
    wanted = resolve(split, {side for side in sides.values() if side}, directory)
    held_out = [
        row.path for row in rows if wanted == "train" and sides[row.key] not in (None, wanted)
    ]
    return Listing([row for row in rows if sides[row.key] == wanted], held_out)


def _say_unnamed(part: Path, captions: dict[str, list[str]], problems: Problems) -> None:
    """Say what lies beside the metadata but isn't in it."""
    found = walk(part, {METADATA})
    named = {os.path.normpath(name) for name in captions}
    unnamed = [name for name in found.images if name not in named]
    if unnamed:
        found.ignored[f"image that {METADATA} doesn't name, as {unnamed[0]}"] = len(unnamed)
    if said := found.said(part):
        problems.say(said)


def _say_outside(directory: Path, parts: dict[str, list[Path]], problems: Problems) -> None:
    """Say what lies beside the folders of the splits."""
    names = {part.name for folders in parts.values() for part in folders}
    outside = walk(directory, names)
    if outside.images:
        problems.say(
            f"{directory}: ignored {len(outside.images):,} images outside of "
            f"{', '.join(f'{name}/' for name in sorted(names))} (first: {outside.images[0]})"
        )


def _captions(file: Path, problems: Problems, required: bool = True) -> dict[str, list[str]]:
    """Captions by file name, of some none; lines that name the same image are put together.

    A line without a caption is a problem if one is `required`.
    """
    captions: dict[str, list[str]] = {}
    for number, line in lines(file, problems):
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            problems.add(file, number, f"not JSON ({error.msg})")
            continue
        except (ValueError, RecursionError) as error:
            problems.add(file, number, f"not JSON that can be read ({error})")
            continue
        name = entry.get("file_name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or caption(name) is None:
            problems.add(file, number, "no file_name")
            continue
        told: object = next((entry[field] for field in CAPTION_FIELDS if entry.get(field)), [])
        given = told if isinstance(told, list) else [told]
        found = texts(given)
        if required and (not found or not all(map(texts, given))):
            problems.add(file, number, f"no caption, or an empty one, for {name}")
        captions.setdefault(name, []).extend(found)
    return captions


def _other(directory: Path) -> str:
    """What to do if the metadata is there in another of imagefolder's formats."""
    for name in ("metadata.csv", "metadata.parquet"):
        if any((place / name).is_file() for place in (directory, *directory.iterdir())):
            return f"; found {name}: the corpus `hub:{directory.absolute()}` reads that"
    return ""
