"""The scenes corpus: generated images with five true captions each, no download.

Stands at the beginning of corpus → importance → mask. What is in a scene is decided, drawn and
described in `corpora.generating`; here scenes become a `datasets.Dataset` like that of any other
corpus.
"""

import contextlib
import functools
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
from tqdm import tqdm

from corpora.generating.drawing import render
from corpora.generating.layout import Scene, Thing, scene
from corpora.generating.wording import captions

__all__ = ["SEEDS", "Scene", "Thing", "captions", "load_scenes", "render", "scene"]

SEEDS = {"train": 1, "validation": 2}
DEFAULT_IMAGES = {"train": 4096, "validation": 1000}
FEATURES = datasets.Features(
    {
        "image": datasets.Image(),
        "captions": datasets.List(datasets.Value("string")),
        "key": datasets.Value("string"),
    }
)


def load_scenes(split: str = "validation", images: int | None = None) -> datasets.Dataset:
    """The scenes of a split as a data set with columns image, captions and key.

    The splits draw from different seeds, so no scene is in both. Images (4,096 in train, 1,000 in
    validation, unless `images` says otherwise) are rendered once, kept as PNG in the Hugging Face
    cache, and decoded when they are read. Raises ValueError for any other split, and for fewer
    than one image.
    """
    if split not in SEEDS:
        raise ValueError(f"scenes has no split {split!r}: ask for one of {', '.join(SEEDS)}")
    count = DEFAULT_IMAGES[split] if images is None else images
    if count < 1:
        raise ValueError(f"scenes: {count} images asked for, at least 1 needed")
    with _quiet():
        return datasets.Dataset.from_generator(
            _rows,
            features=FEATURES,
            gen_kwargs={"split": split, "count": count},
            fingerprint=f"scenes-{split}-{count}-{_code_digest()}",
        )


def _rows(split: str, count: int) -> Iterator[dict[str, Any]]:
    # shown where a person is there to see it: the first run on a machine draws for half a minute
    for index in tqdm(range(count), desc=f"draw scenes: {split}", unit="image", disable=None):
        drawn = scene(SEEDS[split], index)
        png = io.BytesIO()
        render(drawn).save(png, "PNG")
        yield {
            "image": {"bytes": png.getvalue(), "path": None},
            "captions": captions(drawn),
            "key": f"scenes/{split}/{index:06d}",
        }


@functools.cache
def _code_digest() -> str:
    """Changes with the code that makes scenes, so that the cache never holds yesterday's."""
    here = Path(__file__)
    files = [*sorted((here.parent / "generating").glob("*.py")), here]
    code = b"".join(file.read_bytes() for file in files)
    return hashlib.sha256(code).hexdigest()[:16]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leaves the screen to the bar of the drawing: no bar of datasets' own beside it."""
    if datasets.are_progress_bars_disabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()
