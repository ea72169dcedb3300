"""Thumbnails for a corpus whose files have none, where a stage that reads them is measured.

Only what is measured is given them: the files themselves stay as they are, and reports say so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from datasets import Dataset

from cascade import Stage
from corpora.column import undecoded
from corpora.decoding.images import any_has_thumbnail
from corpora.decoding.simulating import usual_long_side, with_thumbnail
from corpora.decoding.sources import content_of

File = TypeVar("File", bytes, dict[str, Any])
"""The bytes of an image file, or {"path": …, "bytes": …}."""


@dataclass(frozen=True)
class Giving:
    """The thumbnails that a corpus's files are given for a stage.

    `long_side`: pixels of their longer edge; None: none are given, as the stage doesn't read
    thumbnails or files have their own.
    """

    long_side: int | None = None

    @classmethod
    def to(cls, stage: Stage, corpus: Dataset, full: Stage | None = None) -> "Giving":
        """What a corpus lacks for a stage.

        Args:
            stage: what reads.
            corpus: its files.
            full: the full tower, to which thumbnails are what a camera's are to a usual one; by
                default the stage. A stage that takes smaller images meets the same thumbnails.
        """
        edge = stage.edge if full is None else full.edge
        if stage.reads != "thumbnail" or edge is None:
            return cls()
        images = undecoded(corpus)["image"]
        return cls() if any_has_thumbnail(images) else cls(usual_long_side(edge))

    def __call__(self, files: Sequence[File]) -> Sequence[File]:
        """The files, each with a thumbnail if such are given.

        Raises:
            CorpusError: one of them can't be given one.
        """
        return files if self.long_side is None else [self._given(file) for file in files]

    def _given(self, file: File) -> File:
        content = with_thumbnail(content_of(file), self.long_side or 1)
        return content if isinstance(file, bytes) else {**file, "bytes": content}
