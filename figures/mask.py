"""What a rule kept of a tower, drawn from the result that it saved: heads, neurons, curves.

Above, a map of the heads by layer; below it the neurons kept in each layer; then, where the rule
allocated by measured curves, each sublayer's curve with the size that was chosen.

    python -m figures.mask --result results/recover-mac-0.5
"""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from commands.errors import UsageError
from commands.flags import ConfigOption, ReadPath, WrittenPath
from commands.run import main_of
from compress.command import run_command


@dataclass(frozen=True)
class MaskOptions(ConfigOption):
    """Draw the heads and neurons that a result keeps, and the curves that it was chosen by.

    Example: python -m figures.mask --result results/recover-mac-0.5
    """

    result: ReadPath | None = None
    """directory that a compression command wrote"""
    output: WrittenPath | None = None
    """directory for mask.png and mask.svg (default: the result's own)"""
    overwrite: bool = False
    """replace pictures that are there already"""

    def check(self) -> None:
        """Raise `UsageError` if no result is named."""
        super().check()
        _ = self.drawn

    @property
    def drawn(self) -> Path:
        """The result.

        Raises:
            UsageError: none is named.
        """
        if self.result is None:
            raise UsageError("name a --result: a directory that a compression command wrote")
        return self.result


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("figures.mask"), MaskOptions, "figures.mask")

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch

from figures.picture import refuse_existing, settle_layout, write_picture
from figures.result import (
    KINDS,
    ChosenCurve,
    Record,
    load_curves,
    load_mask,
    load_record,
)
from figures.style import FAINT, INK, KEPT, REMOVED, SETTINGS, SMALL, log_from_zero, series_style
from pruning_mechanism import Mask

_COLUMNS = 12  # curves beside each other; deeper towers take more rows
_BLOCK = 2.7  # inches that a row of layers takes
_DECADES = 4  # of a curve's losses that the axis tells apart


def draw(record: Record, mask: Mask, curves: Sequence[ChosenCurve] = ()) -> Figure:
    """Draw the figure.

    Args:
        record: how the tower was made, for the title.
        mask: what it keeps.
        curves: what its allocation was chosen by, in any order; without any, no curves are drawn.
    """
    layers, heads = mask.heads.shape
    blocks = math.ceil(layers / _COLUMNS) if curves else 0
    tall = 2.9 + 0.14 * heads
    with matplotlib.style.context(SETTINGS, after_reset=True):
        figure = Figure(figsize=(7.2, tall + _BLOCK * blocks), layout="constrained")
        FigureCanvasAgg(figure)  # measures text, with no screen
        figure.suptitle(textwrap.fill(str(record), 76), color=INK, fontsize=11)
        ratios = [tall, _BLOCK * blocks] if curves else [tall]
        parts = figure.subfigures(len(ratios), 1, squeeze=False, height_ratios=ratios)[:, 0]
        above, below = parts[0].subplots(2, 1, sharex=True, height_ratios=(0.14 * heads, 1.2))
        _head_map(above, mask)
        _neuron_bars(below, mask)
        if curves:
            _curves_panel(parts[1], mask, curves)
        settle_layout(figure)
    return figure


def main(options: MaskOptions) -> None:
    """Read the result, draw, save, and say where."""
    result = options.drawn
    output = options.output or result
    refuse_existing(output, "mask", options.overwrite)
    record, mask = load_record(result), load_mask(result)
    figure = draw(record, mask, load_curves(result, mask))
    write_picture(figure, output, "mask", options.overwrite)


def _head_map(axes: Axes, mask: Mask) -> None:
    """A cell for each head, a column for each layer, and above it the number of heads kept."""
    layers, heads = mask.heads.shape
    axes.pcolormesh(
        np.arange(layers + 1) - 0.5,
        np.arange(heads + 1) - 0.5,
        mask.heads.T.numpy().astype(int),
        cmap=ListedColormap([REMOVED, KEPT]),
        vmin=0,
        vmax=1,
        edgecolors="white",
        linewidth=1.0,
    )
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set_yticks(range(0, heads, 4 if heads > 6 else 1))
    axes.set_ylabel("head")
    axes.tick_params(length=0)
    counts = axes.secondary_xaxis("top")
    counts.set_xticks(range(layers), [str(int(kept)) for kept in mask.heads.sum(1)])
    counts.tick_params(length=0, labelsize=_letters(layers), pad=1)
    counts.spines[:].set_visible(False)
    counts.set_xlabel(f"heads kept of {heads}", labelpad=4)
    patches = [Patch(color=KEPT, label="kept"), Patch(color=REMOVED, label="removed")]
    axes.legend(
        handles=patches, loc="lower right", bbox_to_anchor=(1.01, 1.02 + 1.6 / heads),
        ncols=2, frameon=False, borderpad=0, borderaxespad=0, handlelength=1.2,
    )  # fmt: skip


def _neuron_bars(axes: Axes, mask: Mask) -> None:
    """A bar for each layer, as high as the neurons it keeps, in front of one for all it had."""
    layers, neurons = mask.neurons.shape
    kept = mask.neurons.sum(1).tolist()
    places = range(layers)
    axes.bar(places, [neurons] * layers, width=0.82, color=REMOVED, label="all")
    axes.bar(places, kept, width=0.82, color=KEPT, label="kept")
    upright = layers > 14
    for layer, count in enumerate(kept):
        axes.annotate(
            f"{count:,}", (layer, count), (0, 2), textcoords="offset points", ha="center",
            va="bottom", fontsize=_letters(layers), rotation=90 if upright else 0,
        )  # fmt: skip
    axes.set_ylim(0, neurons * (1.45 if upright else 1.17))
    axes.set_yticks(
        [0, neurons // 2, neurons], [f"{tick:,}" for tick in (0, neurons // 2, neurons)]
    )
    axes.set_xticks(places, [str(layer) for layer in places])
    axes.tick_params(axis="x", length=0, labelsize=10.5 if layers <= 14 else SMALL)
    axes.set_xlim(-0.5, layers - 0.5)
    axes.grid(visible=False)
    axes.set_axisbelow(True)
    axes.set_ylabel("neurons kept")
    axes.set_xlabel("layer")


def _letters(layers: int) -> float:
    """The size of what is written over a layer's column."""
    return 9.5 if layers <= 14 else SMALL


def _curves_panel(figure: SubFigure, mask: Mask, curves: Sequence[ChosenCurve]) -> None:
    """A small picture for each sublayer: attention above MLP, layers beside each other."""
    layers = len(mask.heads)
    blocks = math.ceil(layers / _COLUMNS)
    columns = math.ceil(layers / blocks)
    grid = figure.subplots(len(KINDS) * blocks, columns, squeeze=False)
    places = {(chosen.curve.layer, chosen.curve.kind): chosen for chosen in curves}
    for row, kind in enumerate(KINDS):
        drawn = [chosen for chosen in curves if chosen.curve.kind == kind]
        losses = [loss for chosen in drawn for loss in (*chosen.curve.losses, chosen.loss)] or [0.0]
        for index in range(blocks * columns):
            block, column = divmod(index, columns)
            axes = grid[len(KINDS) * block + row][column]
            if (index, kind) not in places:
                axes.set_visible(False)
                continue
            log_from_zero(axes, losses, _DECADES)
            _curve(axes, places[index, kind])
            axes.tick_params(labelleft=column == 0)
            if column == 0:
                axes.set_ylabel(KINDS[kind], fontsize=10.5)
            if row == 0:
                title = f"layer {index}" if column == 0 else str(index)
                axes.set_title(title, fontsize=9.5, pad=14)
    figure.supylabel("1 − cos to dense", fontsize=10.5)
    figure.supxlabel("heads or neurons kept, from 0 (bold, diamond: chosen)", fontsize=10.5)


def _curve(axes: Axes, drawn: ChosenCurve) -> None:
    """What was measured as dots, what the allocation read as a line, and the size it chose."""
    curve, units = drawn.curve, drawn.curve.units
    sizes = np.linspace(curve.sizes[0], curve.sizes[-1], 97)
    axes.plot(sizes, curve.at(sizes), color=INK, linewidth=1.0, zorder=2)
    axes.plot(curve.sizes, curve.losses, ".", color=INK, markersize=3.5, label="measured", zorder=3)
    axes.axvline(drawn.chosen, color=FAINT, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
    axes.plot(
        drawn.chosen, drawn.loss, "D", color=series_style(1).color, markersize=5.5,
        markeredgecolor=INK, markeredgewidth=0.9, label="chosen", zorder=4, clip_on=False,
    )  # fmt: skip
    axes.annotate(
        f"{drawn.chosen:,}", (0.5, 1), (0, 2), xycoords="axes fraction",
        textcoords="offset points", ha="center", va="bottom", fontsize=SMALL, weight="bold",
    )  # fmt: skip
    axes.set_xlim(0, units)
    axes.set_xticks([0, units], ["", f"{units:,}"])
    axes.get_xticklabels()[1].set_horizontalalignment("right")
    axes.tick_params(labelsize=SMALL, length=2, pad=2)
