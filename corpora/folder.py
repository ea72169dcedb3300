"""A folder of your own images with captions: Hugging Face's imagefolder with `metadata.jsonl`.

Each line is a JSON object with `file_name` and `captions` (a list; a single text under `caption` or
`text` does as well). Sub-directories `train/`, `validation/`, `test/` are the splits; a folder
without them is one set, split by a hash.
"""

import json
from pathlib import Path, PurePosixPath

from corpora.problems import CorpusError, Problems
from corpora.reading import caption, lines
from corpora.rows import Row
from corpora.splits import hashed, resolve, split_name

METADATA = "metadata.jsonl"
LAYOUT = f"{METADATA} with file_name and captions in it or in its train/, validation/, test/"
CAPTION_FIELDS = ("captions", "caption", "text")


def load_folder(directory: Path, split: str, problems: Problems) -> list[Row]:
    """Rows of one split; the key is the image's path in the directory, as in "train/1.jpg".

    Raises CorpusError if there is no metadata or no such split.
    """
    parts = {
        name: part
        for part in sorted(directory.iterdir())
        if (name := split_name(part.name)) and (part / METADATA).is_file()
    }
    if parts:
        part = parts[resolve(split, parts, directory)]
        captions = _captions(part / METADATA, problems)
        return [
            Row(f"{part.name}/{name}", part / name, tuple(texts))
            for name, texts in captions.items()
        ]
    if not (directory / METADATA).is_file():
        raise CorpusError(f"{directory}: no {METADATA}; expected {LAYOUT}{_other(directory)}")
    captions = _captions(directory / METADATA, problems)
    names = _members(directory, captions, split)
    return [Row(name, directory / name, tuple(captions[name])) for name in names]


def _members(directory: Path, captions: dict[str, list[str]], split: str) -> list[str]:
    """The file names of one split: by their first folder if that tells it of all, else by hash."""
    sides = {name: split_name(PurePosixPath(name).parts[0]) for name in captions}
    if not captions or None in sides.values():
        return hashed(captions, split)
    wanted = resolve(split, set(sides.values()), directory)
    return [name for name, side in sides.items() if side == wanted]


def _captions(file: Path, problems: Problems) -> dict[str, list[str]]:
    """Captions by file name; lines that name the same image are put together."""
    captions: dict[str, list[str]] = {}
    for number, line in lines(file, problems):
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            problems.add(file, number, f"not JSON ({error.msg})")
            continue
        name = entry.get("file_name") if isinstance(entry, dict) else None
        if caption(name) is None:
            problems.add(file, number, "no file_name")
            continue
        given = next((entry[field] for field in CAPTION_FIELDS if entry.get(field)), [])
        given = given if isinstance(given, list) else [given]
        texts = [text for text in map(caption, given) if text]
        if len(texts) < max(1, len(given)):
            problems.add(file, number, f"no caption, or an empty one, for {name}")
        if texts:
            captions.setdefault(name, []).extend(texts)
    return captions


def _other(directory: Path) -> str:
    """What to do if the metadata is there in another of imagefolder's formats."""
    for name in ("metadata.csv", "metadata.parquet"):
        if any((place / name).is_file() for place in (directory, *directory.iterdir())):
            return f"; found {name}: the corpus `hub:{directory}` reads that"
    return ""
