"""A folder of your own images, with captions: Hugging Face's imagefolder with `metadata.jsonl`.

Each line is a JSON object with `file_name` and `captions` (a list; a single text under `caption` or
`text` does as well). Sub-directories `train/`, `validation/`, `test/` are the splits; a folder
without them is one set, split by a hash. Where no captions are asked for the metadata may be left
out: then the images are those that lie in the folder, however deep.
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
IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)


def load_folder(directory: Path, split: str, problems: Problems) -> list[Row]:
    """Rows of one split; the key is the image's path in the directory, as in "train/1.jpg".

    Raises CorpusError if there is no metadata or no such split.
    """
    parts = {name: part for name, part in _parts(directory).items() if _has_metadata(part)}
    if not parts and not _has_metadata(directory):
        raise CorpusError(f"{directory}: no {METADATA}; expected {LAYOUT}{_other(directory)}")
    rows = _rows(directory, parts, split, lambda part: _captions(part / METADATA, problems))
    return [row for row in rows if row.captions]


def load_images(directory: Path, split: str, problems: Problems) -> list[Row]:
    """Rows of one split as from `load_folder`, but captions, and metadata, may be missing.

    Raises CorpusError if there is no such split.
    """

    def listed(part: Path) -> dict[str, list[str]]:
        if _has_metadata(part):
            return _captions(part / METADATA, problems, required=False)
        files = sorted(file for file in part.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
        return {file.relative_to(part).as_posix(): [] for file in files}

    parts = _parts(directory)
    if any(map(_has_metadata, parts.values())):
        return _rows(directory, parts, split, listed)
    return _rows(directory, {} if _has_metadata(directory) else parts, split, listed)


def _parts(directory: Path) -> dict[str, Path]:
    """The sub-directories that are splits, by our names for these."""
    return {
        name: part
        for part in sorted(directory.iterdir())
        if (name := split_name(part.name)) and part.is_dir()
    }


def _has_metadata(directory: Path) -> bool:
    return (directory / METADATA).is_file()


def _rows(directory: Path, parts: dict[str, Path], split: str, listed) -> list[Row]:
    """Rows of one split, given its folders, if it has any, and what lists a folder's images."""
    if parts:
        part = parts[resolve(split, parts, directory)]
        return [
            Row(f"{part.name}/{name}", part / name, tuple(texts))
            for name, texts in listed(part).items()
        ]
    captions = listed(directory)
    names = _members(directory, captions, split)
    return [Row(name, directory / name, tuple(captions[name])) for name in names]


def _members(directory: Path, captions: dict[str, list[str]], split: str) -> list[str]:
    """The file names of one split: by their first folder if that tells it of all, else by hash."""
    sides = {name: split_name(PurePosixPath(name).parts[0]) for name in captions}
    if not captions or None in sides.values():
        return hashed(captions, split)
    wanted = resolve(split, set(sides.values()), directory)
    return [name for name, side in sides.items() if side == wanted]


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
        name = entry.get("file_name") if isinstance(entry, dict) else None
        if caption(name) is None:
            problems.add(file, number, "no file_name")
            continue
        given = next((entry[field] for field in CAPTION_FIELDS if entry.get(field)), [])
        given = given if isinstance(given, list) else [given]
        texts = [text for text in map(caption, given) if text]
        if required and len(texts) < max(1, len(given)):
            problems.add(file, number, f"no caption, or an empty one, for {name}")
        captions.setdefault(name, []).extend(texts)
    return captions


def _other(directory: Path) -> str:
    """What to do if the metadata is there in another of imagefolder's formats."""
    for name in ("metadata.csv", "metadata.parquet"):
        if any((place / name).is_file() for place in (directory, *directory.iterdir())):
            return f"; found {name}: the corpus `hub:{directory}` reads that"
    return ""
