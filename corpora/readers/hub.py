"""A data set of the Hugging Face hub, by name, or a local directory in the hub's layout.

Hub data sets agree on nothing but the image type, so the columns are found: the image by its type,
the captions and the key by the names in use. Images stay where `datasets` stores them.
"""

import os
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import datasets
import pyarrow.compute
from datasets import Dataset, DatasetDict, Image, List, Value

from corpora.column import UprightImage
from corpora.problems import CorpusError, Problems
from corpora.readers.identity import same_rows, united
from corpora.readers.published import image_column, loaded, paths_of, usable_rows
from corpora.readers.reading import texts
from corpora.readers.rows import chosen_key, inside
from corpora.readers.walking import walk
from corpora.splits import hashed, resolve, split_name

CAPTION_COLUMNS = (
    "captions",
    "caption",
    "sentences_raw",
    "sentences",
    "texts",
    "text",
    "alt_text",
    "descriptions",
    "description",
    "raw",
)
NUMBERED = re.compile(r"(caption|sentence|text)_?\d+")
# These say which image it is: rows with the same value are one image.
ID_COLUMNS = ("image_id", "img_id", "imgid", "cocoid")
NAME_COLUMNS = ("file_name", "filename", "image_name")
_TABLES = (".csv file", ".jsonl file", ".parquet file")  # metadata of an imagefolder
ROW_COLUMNS = ("key", "id")  # these may number the captions


@dataclass(frozen=True)
class _Part:
    """One of a publisher's splits: its name, the images, and what is known of each row.

    `ids` are the publisher's numbers of the images, equal for rows of one image, and `names` what
    else may name them; either may be missing.
    """

    name: str
    images: Dataset
    captions: list[list[str]]
    ids: list[str] | None
    names: list[str] | None

    def __len__(self) -> int:
        return len(self.captions)

    @property
    def paths(self) -> list[str | None]:
        """The paths of the images."""
        return paths_of(self.images)


def load_hub(source: str, split: str, problems: Problems, captions: bool = True) -> Dataset:
    """One split of a hub data set: `owner/name`, `owner/name@config` or a local directory.

    The publisher's splits are used, or a column `split`; a data set that has nothing but `train` is
    split by a hash (see `corpora.splits`). Rows that show the same picture (the same file, the same
    bytes, or the same name where a column names images) become one; a picture of train that is in a
    held-out split too is left out of train. The key is the publisher's split and what names the
    image, else the number of its first row. With `captions` False images without one stay, and the
    data set need not have any.

    Raises CorpusError if it can't be loaded, or has no image column, captions or such split.
    """
    published = loaded(source)
    available = {name: split_name(name) for name in published}
    _say_unread(published, source, problems)
    if len(published) == 1:
        (name, whole), *_ = published.items()
        parts = [_part(whole, name, source, problems, captions)]
        sides = [_sides_of_one(whole, available[name], split, source)]
        wanted = _wanted_of_one(sides[0], available[name], split, source)
    else:
        known = {ours for ours in available.values() if ours}
        wanted = resolve(split, known, f"{source} ({', '.join(published)})")
        needed = {wanted, "validation", "test"} if wanted == "train" else {wanted}
        names = [name for name, ours in available.items() if ours in needed]
        parts = [
            _part(published[name], name, source, _of(problems, available[name] == wanted), captions)
            for name in names
        ]
        sides = [[available[part.name]] * len(part) for part in parts]
    return _images_once(parts, sides, wanted, split, source, problems, captions)


def _of(problems: Problems, wanted: bool) -> Problems:
    """Where to report: what is wrong with another split than the wanted one isn't said."""
    return problems if wanted else Problems()


def _sides_of_one(
    whole: Dataset, published: str | None, split: str, source: str
) -> list[str | None]:
    """Our split of each row where there is but one part; None where a hash is to decide."""
    sides = [split_name(side) for side in whole["split"]] if "split" in whole.features else []
    if any(sides):
        return [side or "unknown" for side in sides]
    return [published if published in ("validation", "test") else None] * len(whole)


def _wanted_of_one(
    sides: list[str | None], published: str | None, split: str, source: str
) -> str | None:
    """The split to take of a single part; None if it is chosen by hash."""
    known = {side for side in sides if side and side != "unknown"}
    return resolve(split, known, source) if known else None


def _images_once(
    parts: list[_Part],
    sides: list[list[str | None]],
    wanted: str | None,
    split: str,
    source: str,
    problems: Problems,
    captioned: bool,
) -> Dataset:
    """The wanted split with one row a picture, the first, which has all of its captions."""
    own = same_rows([part.images.data.column("image") for part in parts])
    groups, labels = _pictures(parts, own, source)
    captions = [texts for part in parts for texts in part.captions]
    side = [of_row for part in sides for of_row in part]
    usable = usable_rows([part.images for part in parts], source, problems)
    chosen: dict[int, list[int]] = {}
    shared = []
    for group in groups:
        rows = [row for row in group if side[row] == wanted and usable[row]]
        if not rows:
            continue
        if wanted == "train" and any(side[row] in ("validation", "test") for row in group):
            shared.append(labels[rows[0]])
        else:
            chosen[rows[0]] = rows
    problems.say_shared(len(shared), shared[0] if shared else "")
    keys = {first: chosen_key(labels[row] for row in rows) for first, rows in chosen.items()}
    if wanted is None:
        members = set(hashed(keys.values(), split))
        keys = {first: key for first, key in keys.items() if key in members}
    texts = {first: [text for row in chosen[first] for text in captions[row]] for first in keys}
    kept = [first for first in keys if texts[first] or not captioned]
    together = [part.images for part in parts]
    corpus = datasets.concatenate_datasets(together) if len(together) > 1 else together[0]
    # To all rows, and chosen after: adding to a selection would copy the images.
    every = range(len(corpus))
    corpus = corpus.add_column(
        "captions", [texts.get(row, []) for row in every], feature=List(Value("string"))
    )
    corpus = corpus.add_column(
        "key", [keys.get(row, "") for row in every], feature=Value("string")
    ).cast_column("image", UprightImage())
    return corpus if len(kept) == len(corpus) else corpus.select(kept)


def _pictures(
    parts: list[_Part], own: list[list[Hashable]], source: str
) -> tuple[list[list[int]], list[str]]:
    """The rows of each picture, numbered through all parts, and a label for each row.

    Rows are of one picture if their files or bytes are equal or the publisher's column says so: a
    number of the image always, a file name unless different pictures bear it.
    """
    identities = [identity for part in own for identity in part]
    named: list[Hashable] = []
    labels: list[str] = []
    for number, (part, of_part) in enumerate(zip(parts, own, strict=True)):
        ids = part.ids
        if ids is None and part.names is not None and _consistent(part.names, of_part):
            ids = part.names
        start = len(named)
        named += [
            ("row", start + row) if ids is None else (number, ids[row]) for row in range(len(part))
        ]
        found = ids or _labels(part, of_part, source)
        labels += [f"{part.name}/{label}" for label in found]
    return united(identities, named), labels


def _consistent(names: list[str], pictures: list[Hashable]) -> bool:
    """Whether all rows with the same name show the same picture."""
    first: dict[str, Hashable] = {}
    return all(
        first.setdefault(name, picture) == picture
        for name, picture in zip(names, pictures, strict=True)
    )


def _labels(part: _Part, pictures: list[Hashable], source: str) -> list[str]:
    """What names the image of each row: its file, else the number of its picture's first row."""
    paths = [path for path in part.paths if path is not None]
    if len(paths) == len(part):
        files = [PurePath(path).name for path in paths]
        if _consistent(files, pictures):
            return files
        if os.path.isabs(source) and all(inside(path, source) for path in paths):
            relative = [Path(os.path.relpath(path, source)).as_posix() for path in paths]
            if _consistent(relative, pictures):
                return relative
    first: dict[Hashable, int] = {}
    return [f"{first.setdefault(p, row):07d}" for row, p in enumerate(pictures)]


def _say_unread(published: DatasetDict, source: str, problems: Problems) -> None:
    """Say which images of a local imagefolder are in none of its rows, and what else lies there."""
    if not os.path.isabs(source):
        return
    paths: set[str] = set()
    for part in published.values():
        column = part.data.column(image_column(part, source))
        paths.update(filter(None, pyarrow.compute.struct_field(column, "path").to_pylist()))
    read = {os.path.relpath(path, source) for path in paths if inside(path, source)}
    if not read:  # the images are embedded
        return
    found = walk(Path(source), {"README.md"})
    for kind in [kind for kind in found.ignored if kind.startswith(_TABLES)]:
        del found.ignored[kind]
    unread = [name for name in found.images if name not in read]
    if unread:
        found.ignored[f"image in no row, as {unread[0]}"] = len(unread)
    if said := found.said(Path(source)):
        problems.say(said)


def _part(part: Dataset, name: str, source: str, problems: Problems, captioned: bool) -> _Part:
    image = image_column(part, source)
    captions = _captions(part, source, captioned)
    if captioned:
        for row, of_row in enumerate(captions):
            if not of_row:
                problems.add(f"{source} ({name})", row, "no caption in this row")
    images = part.select_columns(image).cast_column(image, Image(decode=False))
    if image != "image":
        images = images.rename_column(image, "image")
    ids = _column(part, ID_COLUMNS)
    names = _column(part, NAME_COLUMNS) or _column(part, ROW_COLUMNS, distinct=True)
    return _Part(name, images, captions, ids, names)


def _column(part: Dataset, names: Sequence[str], distinct: bool = False) -> list[str] | None:
    """The first of these columns that holds a text or a number in each row, as text."""
    for name in names:
        feature = part.features.get(name)
        if not isinstance(feature, Value) or feature.dtype not in ("string", "int64", "int32"):
            continue
        values = part[name][:]
        if None not in values and not (distinct and len(set(values)) < len(values)):
            return [str(value) for value in values]
    return None


def _captions(part: Dataset, source: str, captioned: bool) -> list[list[str]]:
    """The captions of each row, from the first column known to hold them.

    Raises CorpusError if none does and there must be some.
    """
    named = {name.lower(): name for name in part.column_names}
    columns = [named[name] for name in CAPTION_COLUMNS if name in named][:1]
    columns = columns or [name for lower, name in named.items() if NUMBERED.fullmatch(lower)]
    if not columns and not captioned:
        return [[] for _ in range(len(part))]
    if not columns:
        raise CorpusError(
            f"{source}: no captions (columns: {', '.join(part.column_names)}); "
            f"expected one of {', '.join(CAPTION_COLUMNS)}"
        )
    values = part.select_columns(columns)
    return [[text for name in columns for text in texts(row[name])] for row in values]
