"""The column `image` of a corpus: how it decodes, and which of its images can't be decoded.

Broken images are found in one pass before long work starts, so that a broken file is skipped and
named and doesn't end a run. That pass reads a picture by the same steps as everything else
(`corpora.decoding.images`), so what it lets through opens later.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import PIL.Image
from datasets import Dataset, Image

from corpora.decoding.images import open_image
from corpora.problems import CorpusError, Problems

_AT_ONCE = 16
_THREADS = 8


@dataclass(eq=False)
class UprightImage(Image):
    """The type of the column `image`: `datasets.Image`, decoded by `open_image`.

    Apart from that it is the same type, also for comparisons and in files that are written.
    """

    def decode_example(
        self, value: dict[str, Any] | str, token_per_repo_id: dict[str, Any] | None = None
    ) -> PIL.Image.Image:
        """Decode {"path": …, "bytes": …} to upright RGB; raises CorpusError if that fails."""
        if not isinstance(value, dict):
            return open_image(super().decode_example(value, token_per_repo_id))
        content, path = value.get("bytes"), value.get("path")
        if content is None and path is None:
            raise CorpusError("this row has no image")
        if content is None and "://" in str(path):
            return open_image(super().decode_example(value, token_per_repo_id))
        return open_image(value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Image):
            return NotImplemented
        return (self.mode, self.decode) == (other.mode, other.decode)

    __hash__ = Image.__hash__


def unreadable(corpus: Dataset) -> dict[str, str]:
    """Decode each image once; the keys of those that fail, each with the reason.

    The images are neither kept nor encoded again. They are read by `open_image`, JPEG files at an
    eighth of their size: all of the file is read, so that a truncated one is found, in a fraction
    of the time.
    """
    reasons: dict[str, str] = {}
    keys = iter(corpus["key"])
    with ThreadPoolExecutor(_THREADS) as pool:
        for batch in undecoded(corpus).iter(_AT_ONCE):
            for reason in pool.map(_fault, batch["image"]):
                key = next(keys)
                if reason is not None:
                    reasons[key] = reason
    return reasons


def drop_unreadable(corpus: Dataset) -> tuple[Dataset, list[str]]:
    """The corpus without the images that can't be decoded, and their keys.

    What is returned is a selection of the rows of the corpus given. The reasons are said as
    `CorpusWarning`; `unreadable` returns them.
    """
    reasons = unreadable(corpus)
    if not reasons:
        return corpus, []
    with Problems() as problems:
        for reason in reasons.values():
            problems.lines.append(f"skipped an image: {reason}")
    kept = [row for row, key in enumerate(corpus["key"]) if key not in reasons]
    return corpus.select(kept), list(reasons)


def undecoded(corpus: Dataset) -> Dataset:
    """Only the images of a corpus, as {"path": …, "bytes": …}, which `open_image` takes."""
    return corpus.select_columns("image").cast_column("image", Image(decode=False))


def _fault(image: dict[str, Any] | None) -> str | None:
    """Why an image can't be opened, or None if it can."""
    if image is None or (image.get("bytes") is None and image.get("path") is None):
        return "this row has no image"
    try:
        open_image(image, at_least=1)
    except CorpusError as error:
        return str(error)
    return None
