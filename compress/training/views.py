"""The images that a first stage is trained on, as it takes them, beside its teacher's answers.

A view is an image as it is, mirrored, or a part of it enlarged. Which part is the same in every
run, so the teacher's embedding of each view is computed once and kept: several stored views of an
image, of which a step samples one, are MobileCLIP's multi-view reinforcement (arXiv 2311.17049,
section 4.1). Prepared images are kept in memory, in half precision, where they fit, and else
prepared anew each time.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample
from torch.utils.data import Dataset

from compress.calibrating.calibration import Calibration

KEPT = 4 << 30
"""Bytes of prepared images that are kept in memory at most."""
LEAST_AREA = 0.35
"""Share of an image's area that a crop shows at least, the rest being drawn from there to all."""


@dataclass(frozen=True)
class View:
    """A way to see each of so many images: number 0 as they are.

    With flips number 1 is mirrored and crops are so half the time; all others are crops.
    """

    number: int
    images: int
    flips: bool = True

    @property
    def called(self) -> str:
        """What identifies it."""
        if self.number == 0 or (self.flips and self.number == 1):
            return "mirrored" if self.number else "as it is"
        return f"crop {self.number} of {self.images}, {LEAST_AREA}, {self.flips}"

    def of(self, pixels: Tensor, rows: Sequence[int]) -> Tensor:
        """The view of some prepared images.

        Args:
            pixels: [b, 3, height, width].
            rows: which of all the images they are.
        """
        if self.number == 0:
            return pixels
        if self.flips and self.number == 1:
            return pixels.flip(-1)
        placed = self._placed[list(rows)].to(pixels.device, torch.float32)
        grid = affine_grid(placed, list(pixels.shape), align_corners=False)
        seen = grid_sample(pixels.float(), grid, padding_mode="reflection", align_corners=False)
        return seen.to(pixels.dtype)

    @cached_property
    def _placed(self) -> Tensor:
        """Where each image's crop lies, as `affine_grid` takes it, [images, 2, 3]."""
        drawn = torch.rand(self.images, 4, generator=torch.Generator().manual_seed(self.number))
        side = (LEAST_AREA + (1 - LEAST_AREA) * drawn[:, 0]).sqrt()
        across, down = ((1 - side) * (2 * drawn[:, place] - 1) for place in (1, 2))
        mirrored = 1 - 2 * (drawn[:, 3] < 0.5).float() * self.flips
        nothing = torch.zeros_like(side)
        rows = [side * mirrored, nothing, across, nothing, side, down]
        return torch.stack(rows, 1).reshape(-1, 2, 3)


def views_of(images: int, views: int, flips: bool) -> tuple[View, ...]:
    """The first so many views of so many images."""
    return tuple(View(number, images, flips) for number in range(views))


@dataclass(frozen=True)
class Captions:
    """Embeddings of captions, those of each image one after the other.

    `embeddings` are [t, e], `first` and `several` [n] say where each image's begin and how many
    they are.
    """

    embeddings: Tensor
    first: Tensor
    several: Tensor

    def of(self, rows: Sequence[int], number: Sequence[int]) -> Tensor:
        """One caption's embedding of each of some images [b, e]: the views take turns."""
        chosen = torch.tensor(rows)
        return self.embeddings[
            self.first[chosen] + torch.tensor(number) % self.several[chosen].clamp_min(1)
        ]


class Views(Dataset[dict[str, Tensor]]):
    """The views of some images: `pixels` [3, height, width], `embeddings` [e] by the teacher.

    With captions there are `texts` [e], too. They are in the order of the images, all views of one
    after the other.
    """

    def __init__(
        self,
        images: Calibration,
        embeddings: Tensor,
        rows: range,
        flips: bool = True,
        captions: Captions | None = None,
    ):
        """Prepare the first image, to know what all of them take.

        Args:
            images: what to train on, prepared as the first stage wants it.
            embeddings: the teacher's, [n, views, e].
            rows: which of the images.
            flips: see `View`.
            captions: of all the images.
        """
        self.images, self.embeddings, self.rows = images, embeddings, rows
        self.captions, self.views = captions, views_of(len(embeddings), embeddings.shape[1], flips)
        size = images.pixels([rows[0]]).half()
        self._kept: Tensor | None = None
        if math.prod(size.shape) * size.element_size() * len(rows) <= KEPT:
            self._kept = size.new_empty((len(rows), *size.shape[1:]))
            self._known = torch.zeros(len(rows), dtype=torch.bool)

    def __len__(self) -> int:
        return len(self.rows) * len(self.views)

    def __getitem__(self, place: int) -> dict[str, Tensor]:
        return {name: values[0] for name, values in self.__getitems__([place]).items()}

    def __getitems__(self, places: Sequence[int]) -> dict[str, Tensor]:
        """Some views at once, as a batch."""
        views = len(self.views)
        rows, which = [place // views for place in places], [place % views for place in places]
        pixels, own = self._pixels(rows), [self.rows[row] for row in rows]
        seen = torch.empty_like(pixels)
        for number, view in enumerate(self.views):
            if chosen := [place for place, asked in enumerate(which) if asked == number]:
                seen[chosen] = view.of(pixels[chosen], [own[place] for place in chosen])
        batch = {"pixels": seen, "embeddings": self.embeddings[own, which]}
        if self.captions is not None:
            batch["texts"] = self.captions.of(own, which)
        return batch

    def _pixels(self, rows: list[int]) -> Tensor:
        if self._kept is None:
            return self.images.pixels([self.rows[row] for row in rows])
        new = sorted({row for row in rows if not self._known[row]})
        if new:
            self._kept[new] = self.images.pixels([self.rows[row] for row in new]).half().cpu()
            self._known[new] = True
        return self._kept[rows]
