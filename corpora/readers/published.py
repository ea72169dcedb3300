"""What a publisher's data set is loaded by, and which of its rows may be read.

For data sets of the Hugging Face hub and local directories in the hub's layout; what their columns
mean is found by `corpora.readers.hub` (captions) and `corpora.readers.labelled_hub` (classes).
"""

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import datasets
import pyarrow.compute
from datasets import Dataset, DatasetDict, Image

from corpora.problems import CorpusError, Problems
from corpora.readers.rows import inside
from corpora.readers.walking import Walk, passed_over

# Names that `load_dataset` takes for one of its loaders, which then read the working directory.
LOADERS = frozenset(datasets.packaged_modules._PACKAGED_DATASETS_MODULES)

_MOST_FILES = 1000  # each is looked up by itself; folders of more are images, which aren't copied

Choose = Callable[[Sequence[str]], str]
"""From the publisher's names of all splits to the one to read."""


def loaded(source: str, choose: Choose | None = None) -> DatasetDict:
    """`owner/name`, `owner/name@config` or an absolute directory, as published.

    Args:
        source: the data set.
        choose: reads one split alone, where splits are files of their own, and what it raises is
            raised; ImageNet's train split is 20 times as large as the one that is classified.

    Raises:
        CorpusError: it can't be loaded.
    """
    # An absolute path is never taken for a loader of that name ("imagefolder", "parquet", "json").
    name, _, config = (source, "", "") if os.path.isabs(source) else source.partition("@")
    if not os.path.isabs(name) and name in LOADERS:
        raise CorpusError(
            f"{name} is a loader of the datasets library, not a data set: name its directory, as "
            f"in --corpus hub --corpus-dir DIR"
        )
    try:
        with _no_bars():
            try:
                return _read(name, config or None, None, choose)
            except RuntimeError as error:
                if "scripts are no longer supported" not in str(error):
                    raise
                # The hub keeps a copy in parquet of most data sets that still ship a script.
                return _read(name, config or None, "refs/convert/parquet", choose)
    except CorpusError:
        raise
    # datasets, huggingface_hub, fsspec and pyarrow each raise their own errors here.
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise CorpusError(
            f"{source}: can't be loaded as a Hugging Face data set ({reason}); expected "
            "owner/name, owner/name@config or a directory with parquet files or an imagefolder"
        ) from error


def _read(
    name: str, config: str | None, revision: str | None, choose: Choose | None
) -> DatasetDict:
    """All splits, or the one chosen if it can be read without the others."""
    if choose is None:
        return datasets.load_dataset(name, config, revision=revision)
    files = datasets.load_dataset_builder(name, config, revision=revision).config.data_files or {}
    parts = {str(part): list(map(str, several)) for part, several in files.items()}
    chosen = choose(tuple(parts)) if parts else ""
    if len(parts) < 2 or len(parts[chosen]) > _MOST_FILES:
        return datasets.load_dataset(name, config, revision=revision)
    return datasets.load_dataset(
        name,
        config,
        revision=revision,
        data_files={chosen: list(map(glob.escape, parts[chosen]))},
        verification_mode="no_checks",  # of the splits that the publisher says there are
    )


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


def paths_of(images: Dataset) -> list[str | None]:
    """The paths in a column `image`, straight from the table: no bytes are loaded."""
    column = images.data.column("image")
    paths: list[str | None] = pyarrow.compute.struct_field(column, "path").to_pylist()
    return paths


def usable_rows(parts: Sequence[Dataset], source: str, problems: Problems) -> list[bool]:
    """Which rows have an image that may be read: embedded, or a photograph in the data set.

    Files outside of the directory (or, of a data set of the hub, outside of where these are kept)
    are left out and reported, and so are thumbnails.
    """
    local = os.path.isabs(source)
    kept = (datasets.config.HF_CACHE_HOME, datasets.config.HF_DATASETS_CACHE)
    roots = [source, *kept] if local else list(kept)
    usable: list[bool] = []
    passed: Counter[str] = Counter()
    for part in parts:
        column = pyarrow.compute.struct_field(part.data.column("image"), "bytes")
        embedded = pyarrow.compute.is_valid(column).to_pylist()
        for path, has_bytes in zip(paths_of(part), embedded, strict=True):
            fine = True
            if path is None or has_bytes or "://" in path:
                pass
            elif not any(inside(path, root) for root in roots):
                problems.add(source, None, f"the file name {path!r} leads outside of it, left out")
                fine = False
            elif local and inside(path, source) and (reason := passed_over(path, source)):
                passed[reason] += 1
                fine = False
            usable.append(fine)
    if said := Walk(ignored=passed).said(Path(source)):
        problems.say(said)
    return usable


def image_column(part: Dataset, source: str) -> str:
    """The column that holds the images; raises CorpusError if none does."""
    images = [name for name, feature in part.features.items() if isinstance(feature, Image)]
    if not images:
        raise CorpusError(
            f"{source}: no column holds images (columns: {', '.join(part.column_names)}); "
            "choose a data set that holds the images, not only their addresses"
        )
    return "image" if "image" in images else images[0]
