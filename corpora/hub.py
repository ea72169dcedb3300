"""A data set of the Hugging Face hub, by name, or a local directory in the hub's layout.

Hub data sets agree on nothing but the image type, so the columns are found: the image by its type,
the captions and the key by the names in use. Images stay where `datasets` stores them.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath

import datasets
import pyarrow.compute
from datasets import Dataset, DatasetDict, Image, List, Value

from corpora.problems import CorpusError, Problems
from corpora.reading import caption
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
IMAGE_NAMES = ("file_name", "filename", "image_name", "image_id", "img_id", "imgid", "cocoid")
ROW_NAMES = ("key", "id")  # these may number the captions


def load_hub(source: str, split: str, problems: Problems, captions: bool = True) -> Dataset:
    """One split of a hub data set: `owner/name`, `owner/name@config` or a local directory.

    The publisher's splits are used, or a column `split`; a data set that has nothing but `train` is
    split by a hash (see `corpora.splits`). A row for each caption becomes a row for each image. The
    key is the publisher's split and what names the image, else the number of the row. With
    `captions` False images without one stay, and the data set need not have any.

    Raises CorpusError if it can't be loaded, or has no image column, captions or such split.
    """
    published = _loaded(source)
    available = {name: split_name(name) for name in published}
    if len(published) == 1:
        (name, whole), *_ = published.items()
        corpus = _columns(whole, name, source, problems, captions)
        rows = _split_of_one(whole, corpus["key"], available[name], split, source)
        return _images_once(corpus, rows, captions)
    wanted = resolve(split, set(available.values()), f"{source} ({', '.join(published)})")
    parts = []
    for name, ours in available.items():
        if ours == wanted:
            part = _columns(published[name], name, source, problems, captions)
            parts.append(_images_once(part, range(len(part)), captions))
    return datasets.concatenate_datasets(parts) if len(parts) > 1 else parts[0]


def _loaded(source: str) -> DatasetDict:
    name, _, config = (source, "", "") if Path(source).is_dir() else source.partition("@")
    try:
        with _no_bars():
            try:
                return datasets.load_dataset(name, config or None)
            except RuntimeError as error:
                if "scripts are no longer supported" not in str(error):
                    raise
                # The hub keeps a copy in parquet of most data sets that still ship a script.
                revision = "refs/convert/parquet"
                return datasets.load_dataset(name, config or None, revision=revision)
    # datasets, huggingface_hub, fsspec and pyarrow each raise their own errors here.
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise CorpusError(
            f"{source}: can't be loaded as a Hugging Face data set ({reason}); expected "
            "owner/name, owner/name@config or a directory with parquet files or an imagefolder"
        ) from error


@contextmanager
def _no_bars() -> Iterator[None]:
    """Without the bars of `datasets`; huggingface_hub still shows its own while it downloads."""
    were_off = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not were_off:
            datasets.enable_progress_bars()


def _columns(part: Dataset, name: str, source: str, problems: Problems, captioned: bool) -> Dataset:
    """The part with our three columns; the first row of an image has all of its captions."""
    image = _image_column(part, source)
    texts = _captions(part, source, captioned)
    keys = [f"{name}/{key}" for key in _keys(part, image)]
    gathered: dict[str, list[str]] = {}
    for row, (key, captions) in enumerate(zip(keys, texts, strict=True)):
        if captioned and not captions:
            problems.add(f"{source} ({name})", row, "no caption in this row")
        gathered.setdefault(key, []).extend(captions)
    texts = [gathered.pop(key, []) for key in keys]
    corpus = part.select_columns(image).cast_column(image, Image())
    if image != "image":
        corpus = corpus.rename_column(image, "image")
    corpus = corpus.add_column("captions", texts, feature=List(Value("string")))
    return corpus.add_column("key", keys, feature=Value("string"))


def _images_once(corpus: Dataset, rows: range | list[int], captioned: bool) -> Dataset:
    """Those of the rows that have captions, or, without `captioned`, the first of each image."""
    if captioned:
        captions = corpus["captions"][:]
        kept = [row for row in rows if captions[row]]
    else:
        keys = corpus["key"][:]
        kept = sorted({keys[row]: row for row in reversed(rows)}.values())
    return corpus if len(kept) == len(corpus) else corpus.select(kept)


def _split_of_one(
    whole: Dataset, keys: list[str], published: str | None, split: str, source: str
) -> list[int]:
    """The rows of a split where there is but one part: by a column `split`, else by hash."""
    sides = [split_name(side) for side in whole["split"]] if "split" in whole.features else []
    if any(sides):
        wanted = resolve(split, set(sides), source)
        return [row for row, side in enumerate(sides) if side == wanted]
    if published in ("validation", "test"):
        resolve(split, [published], source)
        return list(range(len(whole)))
    members = set(hashed(keys, split))
    return [row for row, key in enumerate(keys) if key in members]


def _image_column(part: Dataset, source: str) -> str:
    images = [name for name, feature in part.features.items() if isinstance(feature, Image)]
    if not images:
        raise CorpusError(
            f"{source}: no column holds images (columns: {', '.join(part.column_names)}); "
            "choose a data set that holds the images, not only their addresses"
        )
    return "image" if "image" in images else images[0]


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
    return [[text for name in columns for text in _texts(row[name])] for row in values]


def _texts(value: object) -> list[str]:
    """All captions in a text, a list, or COCO's {"raw": …}, however nested."""
    if isinstance(value, dict):
        return _texts(value.get("raw") or value.get("caption") or value.get("text"))
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    return [text] if (text := caption(value)) else []


def _keys(part: Dataset, image: str) -> list[str]:
    """What names the image of each row: a column, its file, or else the number of the row."""
    for name in (*IMAGE_NAMES, *ROW_NAMES):
        feature = part.features.get(name)
        if not isinstance(feature, Value) or feature.dtype not in ("string", "int64", "int32"):
            continue
        values = part[name][:]
        distinct = len(set(values)) == len(values)
        if None not in values and (distinct or name in IMAGE_NAMES):
            return [str(value) for value in values]
    # Straight from the table: reading the column would load the bytes of all images.
    paths = pyarrow.compute.struct_field(part.data.column(image), "path").to_pylist()
    files = [PurePath(path).name if path else None for path in paths]
    if None not in files and len(set(files)) == len(files):
        return files
    return [f"{row:07d}" for row in range(len(part))]
