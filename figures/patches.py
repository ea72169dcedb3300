"""A contact sheet: on real images, which patches each first stage keeps and which tokens it merges.

Drawn from the record that `evaluation.patches` writes: a row for each first stage, a column for
each image. Patches that are left out are hatched; those that end as one token have its mean colour.

    python -m figures.patches --record results/patches
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from commands.errors import UsageError
from commands.flags import ConfigOption, ReadPath, WrittenPath
from commands.run import main_of
from evaluation.command import run_command


@dataclass(frozen=True)
class PatchesFigureOptions(ConfigOption):
    """Draw which patches first stages keep and which tokens they merge.

    Example: python -m figures.patches --record results/patches
    """

    record: ReadPath = Path("results/patches")
    """directory that evaluation.patches wrote"""
    output: WrittenPath | None = None
    """directory for patches.png and patches.svg (default: the record's own)"""
    overwrite: bool = False
    """replace pictures that are there already"""


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("figures.patches"), PatchesFigureOptions, "figures.patches")

import matplotlib.style
import numpy as np
import numpy.typing as npt
import PIL.Image
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch, Rectangle

from evaluation.reports.patches import LEFT_OUT, StagePatches, open_patches
from figures.picture import refuse_existing, settle_layout, write_picture
from figures.style import INK, SETTINGS, Look

Pixels: TypeAlias = npt.NDArray[np.uint8]
"""A picture, [height, width, 3]."""
Numbers: TypeAlias = npt.NDArray[np.int64]
"""A number for each patch, [rows, columns]."""

_WIDTH = 7.2  # inches
_GAP = 0.06  # between images, as a share of one
_LEAST = 3  # images that a row has room for, so that titles have room as well
_LINE = 0.18  # inches, of a title
_LETTERS = 52  # of a title in a line; beside it stands what became of the patches
_HATCHED: Look = {
    "facecolor": "#f2f2f2",
    "edgecolor": "#bdbdbd",
    "hatch": "/////",
    "linewidth": 0,
}
_BORDERS: tuple[Look, ...] = (
    {"colors": INK, "linewidths": 1.5},
    {"colors": "white", "linewidths": 0.8},
)


@dataclass(frozen=True)
class SeenImage:
    """An image as a stage sees it, uint8 [height, width, 3], and where its patches went.

    `groups` [rows, columns] holds the token that each patch is part of, -1 where it is left out.
    """

    pixels: Pixels
    groups: Numbers

    @property
    def sizes(self) -> Numbers:
        """How many patches the token of each patch stands for, [rows, columns]; 0: left out."""
        counts = np.bincount(self.groups.ravel() + 1)
        counts[0] = 0
        return np.take(counts, self.groups + 1)

    def painted(self) -> Pixels:
        """The pixels with merged patches in their token's mean colour."""
        painted, sizes = self.pixels.copy(), self._spread(self.sizes)
        groups = self._spread(self.groups)
        for token in np.unique(groups[sizes > 1]):
            painted[groups == token] = self.pixels[groups == token].mean(0).round()
        return painted

    def borders(self) -> list[tuple[tuple[int, int], tuple[int, int]]]:
        """The edges between patches of different tokens, in patches: (column, row) pairs."""
        across = self.groups[:, 1:] != self.groups[:, :-1]
        down = self.groups[1:] != self.groups[:-1]
        return [
            *(((x + 1, y), (x + 1, y + 1)) for y, x in np.argwhere(across).tolist()),
            *(((x, y + 1), (x + 1, y + 1)) for y, x in np.argwhere(down).tolist()),
        ]

    def dropped(self) -> list[tuple[int, int]]:
        """The patches that are left out, (column, row)."""
        return [(x, y) for y, x in np.argwhere(self.groups == LEFT_OUT).tolist()]

    def _spread(self, patches: Numbers) -> Numbers:
        """Something of each patch [rows, columns] at each of its pixels."""
        height, width = (
            pixels // count for pixels, count in zip(self.pixels.shape, patches.shape, strict=False)
        )
        return patches.repeat(height, 0).repeat(width, 1)


@dataclass(frozen=True)
class SheetRow:
    """A first stage's row of the sheet."""

    title: str
    images: tuple[SeenImage, ...]

    @property
    def lines(self) -> list[str]:
        """The title in lines as wide as there is room for, broken between the steps of a chain."""
        whole = self.title.replace(" ", "\N{NO-BREAK SPACE}")
        steps = whole.replace("\N{NO-BREAK SPACE}→\N{NO-BREAK SPACE}", " → ")
        lines = textwrap.wrap(steps, _LETTERS) or [""]
        return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]

    @property
    def tokens(self) -> str:
        """What became of the patches, in words; the range, if the images differ."""
        left = sorted({len(np.unique(image.groups[image.groups >= 0])) for image in self.images})
        several = f"{left[0]}–{left[-1]}" if len(left) > 1 else f"{left[0]}"
        ending = "" if left == [1] else "s"
        return f"{self.images[0].groups.size} patches → {several} token{ending}"


def draw(rows: Sequence[SheetRow]) -> Figure:
    """Draw the sheet: the images themselves, then a row for each first stage.

    Args:
        rows: at least one, all of the same images.
    """
    images = max(_LEAST, *(len(row.images) for row in rows))
    cell = _WIDTH / (images + _GAP * (images - 1))
    lines = 1 + sum(len(row.lines) for row in rows)
    height = (len(rows) + 1) * (cell + 0.14) + lines * _LINE + 0.4
    with matplotlib.style.context(SETTINGS, after_reset=True):
        layout = ConstrainedLayoutEngine(h_pad=0.03, hspace=0.02)
        figure = Figure(figsize=(_WIDTH + 0.2, height), layout=layout)
        FigureCanvasAgg(figure)  # measures text, with no screen
        panels = figure.subplots(len(rows) + 1, 1)
        _plain(panels[0], rows[0])
        for axes, row in zip(panels[1:], rows, strict=True):
            _tokens(axes, row)
        figure.legend(
            handles=_meanings(rows), loc="outside lower center", ncols=3, frameon=False,
            fontsize=10.5, handlelength=1.4, handleheight=1.2,
        )  # fmt: skip
        settle_layout(figure)
    return figure


def main(options: PatchesFigureOptions) -> None:
    """Read the record and its images, draw, save, and say where."""
    output = options.output or options.record
    refuse_existing(output, "patches", options.overwrite)
    record = open_patches(options.record)
    if not record.stages:
        raise UsageError(f"--record {options.record} has no first stage to draw")
    figure = draw([_row(options.record, stage) for stage in record.stages])
    write_picture(figure, output, "patches", options.overwrite)


def _row(directory: Path, stage: StagePatches) -> SheetRow:
    shape = stage.rows, stage.columns
    return SheetRow(
        stage.made_by,
        tuple(
            SeenImage(_pixels(directory / name, shape), np.array(groups).reshape(shape))
            for name, groups in zip(stage.images, stage.groups, strict=True)
        ),
    )


def _pixels(path: Path, shape: tuple[int, int]) -> Pixels:
    """An image file, uint8 [height, width, 3].

    Raises:
        UsageError: it isn't there, is no image, or can't be cut into so many patches.
    """
    try:
        with PIL.Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
    except OSError as error:
        raise UsageError(f"{path} can't be read as an image") from error
    if any(side % count for side, count in zip(pixels.shape, shape, strict=False)):
        raise UsageError(f"{path} can't be cut into {shape[0]} x {shape[1]} patches")
    return pixels


def _place(axes: Axes, number: int, image: SeenImage, pixels: Pixels) -> float:
    """Show pixels as the image of that number in a row; where its left edge is, in patches."""
    rows, columns = image.groups.shape
    left: float = number * columns * (1 + _GAP)
    axes.imshow(pixels, extent=(left, left + columns, rows, 0), interpolation="nearest")
    return left


def _frame(axes: Axes, row: SheetRow, title: str, note: str) -> None:
    rows, columns = row.images[0].groups.shape
    axes.set_xlim(0, columns * (max(_LEAST, len(row.images)) * (1 + _GAP) - _GAP))
    axes.set_ylim(rows, 0)
    axes.set_axis_off()
    axes.set_title(title, loc="left", fontsize=11, color=INK, pad=4)
    axes.set_title(note, loc="right", fontsize=10, color=INK, pad=4)


def _plain(axes: Axes, row: SheetRow) -> None:
    """The images, as the first stage sees them."""
    for number, image in enumerate(row.images):
        _place(axes, number, image, image.pixels)
    _frame(axes, row, "images as the tower sees them", "")


def _tokens(axes: Axes, row: SheetRow) -> None:
    """What a stage makes of the images."""
    lines, left_out = [], []
    for number, image in enumerate(row.images):
        left = _place(axes, number, image, image.painted())
        lines += [[(left + x, y) for x, y in edge] for edge in image.borders()]
        left_out += [Rectangle((left + x, y), 1, 1) for x, y in image.dropped()]
    if left_out:
        axes.add_collection(PatchCollection(left_out, **_HATCHED, zorder=2))
    for look in _BORDERS:  # white on dark, so that they show on every picture
        axes.add_collection(LineCollection(lines, **look, zorder=3))
    _frame(axes, row, "\n".join(row.lines), row.tokens)


def _meanings(rows: Sequence[SheetRow]) -> list[Patch]:
    """What hatching and flat colours mean, where there are any."""
    images = [image for row in rows for image in row.images]
    meanings = []
    if any(image.dropped() for image in images):
        meanings.append(Patch(label="left out", **_HATCHED))
    if any((image.sizes > 1).any() for image in images):
        meanings.append(
            Patch(facecolor="#8a7a5c", label="merged into one token, in its mean colour")
        )
    return meanings
