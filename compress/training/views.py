"""The images that a first stage is trained on, as it takes them, beside the full tower's answers.

A view is an image, as it is or mirrored; what the full tower makes of each view is known. Prepared
images are kept in memory, in half precision, where they fit, and else prepared anew each time.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from compress.calibrating.calibration import Calibration

KEPT = 4 << 30
"""Bytes of prepared images that are kept in memory at most."""


def view_of(pixels: Tensor, view: int) -> Tensor:
    """A view of prepared images [b, 3, height, width]: 0 as they are, 1 mirrored."""
    return pixels.flip(-1) if view else pixels


class Views(Dataset[dict[str, Tensor]]):
    """The views of some images: `pixels` [3, height, width], `embeddings` [e] by the full tower.

    They are in the order of the images, all views of one after the other.
    """

    def __init__(self, images: Calibration, embeddings: Tensor, rows: range):
        """Prepare the first image, to know what all of them take.

        Args:
            images: what to train on, prepared as the first stage wants it.
            embeddings: the full tower's, [n, views, e].
            rows: which of the images.
        """
        self.images, self.embeddings, self.rows = images, embeddings, rows
        size = images.pixels([rows[0]]).half()
        self._kept: Tensor | None = None
        if size.nbytes * len(rows) <= KEPT:
            self._kept = size.new_empty((len(rows), *size.shape[1:]))
            self._known = torch.zeros(len(rows), dtype=torch.bool)

    def __len__(self) -> int:
        return len(self.rows) * self.embeddings.shape[1]

    def __getitem__(self, place: int) -> dict[str, Tensor]:
        return {name: values[0] for name, values in self.__getitems__([place]).items()}

    def __getitems__(self, places: Sequence[int]) -> dict[str, Tensor]:
        """Some views at once, as a batch."""
        views = self.embeddings.shape[1]
        rows, which = [place // views for place in places], [place % views for place in places]
        pixels = self._pixels(rows)
        return {
            "pixels": torch.stack([view_of(*each) for each in zip(pixels, which, strict=True)]),
            "embeddings": self.embeddings[[self.rows[row] for row in rows], which],
        }

    def _pixels(self, rows: list[int]) -> Tensor:
        if self._kept is None:
            return self.images.pixels([self.rows[row] for row in rows])
        new = sorted({row for row in rows if not self._known[row]})
        if new:
            self._kept[new] = self.images.pixels([self.rows[row] for row in new]).half().cpu()
            self._known[new] = True
        return self._kept[rows]
