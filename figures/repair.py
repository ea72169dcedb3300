"""How far each sublayer of a smaller tower is from the dense one, before and after its repair.

Drawn from results' `repair.json`, as compression commands write it; several results are compared.
Going up the tower, attention above and MLP below: hollow before the repair, filled after it.

    python -m figures.repair --result results/fisher-mac-0.5 results/recover-mac-0.5
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from commands.errors import UsageError
from commands.flags import ConfigOption, ReadPath, WrittenPath
from commands.run import main_of
from compress.command import run_command


@dataclass(frozen=True)
class RepairOptions(ConfigOption):
    """Draw each sublayer's relative error before and after its repair.

    Example: python -m figures.repair --result results/fisher-mac-0.5 results/recover-mac-0.5
    """

    result: tuple[ReadPath, ...] = ()
    """one or more directories that compression commands wrote"""
    output: WrittenPath | None = None
    """directory for repair.png and repair.svg (default: the first result's own)"""
    overwrite: bool = False
    """replace pictures that are there already"""

    def check(self) -> None:
        """Raise `UsageError` if no result is named."""
        super().check()
        if not self.result:
            directory = "a directory that a compression command wrote"
            raise UsageError(f"name at least one --result: {directory}")


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("figures.repair"), RepairOptions, "figures.repair")

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from compress.solving.repair import SublayerRepair
from figures.picture import refuse_existing, settle_layout, write_picture
from figures.result import KINDS, Record, load_record, load_repairs
from figures.style import INK, SETTINGS, SMALL, Look, SeriesStyle, log_from_zero, series_style

_DECADES = 5  # of errors that the axis tells apart
_SPREAD = 0.7  # share of a layer's width over which the results stand beside each other
_LEGEND: Look = {
    "frameon": False,
    "fontsize": 11,
    "handletextpad": 0.3,
    "columnspacing": 1.5,
}
_UNCHANGED: Look = {
    "marker": "_",
    "color": INK,
    "markersize": 8,
    "linestyle": "none",
    "zorder": 4,
}
_PROBLEM: Look = {
    "marker": "x",
    "color": INK,
    "markersize": 8,
    "linestyle": "none",
    "zorder": 4,
}


@dataclass(frozen=True)
class RepairedTower:
    """A result's repairs, and what the picture calls it."""

    name: str
    record: Record
    repairs: tuple[SublayerRepair, ...]


def draw(towers: Sequence[RepairedTower]) -> Figure:
    """Draw the figure.

    Args:
        towers: at least one, each with at least one repair.
    """
    crowded = sum(len(tower.repairs) for tower in towers) > 100
    size = 4.5 if crowded else 6.0
    with matplotlib.style.context(SETTINGS, after_reset=True):
        figure = Figure(figsize=(7.2, 6.0), layout="constrained")
        FigureCanvasAgg(figure)  # measures text, with no screen
        panels = figure.subplots(len(KINDS), 1, sharex=True, sharey=True)
        if len(towers) == 1:
            title = textwrap.fill(str(towers[0].record), 76)
            panels[0].set_title(title, color=INK, fontsize=11)
        for axes, (kind, name) in zip(panels, KINDS.items(), strict=True):
            for number, tower in enumerate(towers):
                shift = _SPREAD * ((number + 0.5) / len(towers) - 0.5)
                repairs = [repair for repair in tower.repairs if repair.kind == kind]
                _series(axes, repairs, shift, series_style(number), size)
            axes.set_ylabel(name)
        _scale(panels, towers)
        figure.supylabel("relative error ‖X̃W̃ − T‖² / ‖T‖²", fontsize=12)
        panels[-1].set_xlabel("layer, going up the tower")
        _legends(figure, towers)
        settle_layout(figure)
    return figure


def main(options: RepairOptions) -> None:
    """Read the results, draw, save, and say where."""
    output = options.output or options.result[0]
    refuse_existing(output, "repair", options.overwrite)
    records = [load_record(path) for path in options.result]
    towers = [
        RepairedTower(name, record, tuple(load_repairs(path)))
        for path, record, name in zip(options.result, records, _names(options.result), strict=True)
    ]
    write_picture(draw(towers), output, "repair", options.overwrite)


def _names(paths: Sequence[Path]) -> list[str]:
    """What tells results apart: their directories' names, or whole paths where those agree."""
    short = [path.resolve().name for path in paths]
    return short if len(set(short)) == len(short) else [str(path) for path in paths]


def _series(
    axes: Axes, repairs: Sequence[SublayerRepair], shift: float, style: SeriesStyle, size: float
) -> None:
    """One result's sublayers of a kind: a stem from before to after, and marks on odd ones."""
    layers = [repair.layer + shift for repair in repairs]
    before = [repair.error_before for repair in repairs]
    after = [repair.error_after for repair in repairs]
    axes.vlines(layers, after, before, color=style.color, linewidth=1.2, zorder=2)
    look: Look = {"marker": style.marker, "linestyle": "none", "markersize": size, "zorder": 3}
    hollow: Look = {"markerfacecolor": "white", "markeredgecolor": style.color}
    axes.plot(layers, before, label="before", clip_on=False, markeredgewidth=1.3, **look, **hollow)
    marked: dict[str, tuple[Look, list[bool]]] = {
        "after": ({"color": style.color, **look}, [_changed(repair) for repair in repairs]),
        "unchanged": (_UNCHANGED, [not (_changed(repair) or repair.problem) for repair in repairs]),
        "problem": (_PROBLEM, [bool(repair.problem) for repair in repairs]),
    }
    for name, (mark, flags) in marked.items():
        if any(flags):  # a line without points has no place for the layout to measure
            points = zip(layers, after, flags, strict=True)
            x, y = zip(*((x, y) for x, y, flag in points if flag), strict=True)
            axes.plot(x, y, label=name, clip_on=False, **mark)


def _changed(repair: SublayerRepair) -> bool:
    return repair.damping is not None


def _scale(panels: Sequence[Axes], towers: Sequence[RepairedTower]) -> None:
    repairs = [repair for tower in towers for repair in tower.repairs]
    errors = [error for repair in repairs for error in (repair.error_before, repair.error_after)]
    layers = 1 + max(repair.layer for repair in repairs)
    for axes in panels:
        log_from_zero(axes, errors, _DECADES)
        axes.grid(visible=False, axis="x")
        for edge in range(1, layers):
            axes.axvline(edge - 0.5, color="#eeeeee", linewidth=0.8, zorder=0)
    panels[-1].set_xticks(range(layers), [str(layer) for layer in range(layers)])
    panels[-1].tick_params(axis="x", length=0, labelsize=10.5 if layers <= 14 else SMALL)
    panels[-1].set_xlim(-0.6, layers - 0.4)


def _legends(figure: Figure, towers: Sequence[RepairedTower]) -> None:
    """Above, which marker is which result; below, what hollow, filled and the marks mean."""
    hollow: Look = {"marker": "o", "markerfacecolor": "white", "markeredgecolor": INK}
    meanings = [
        Line2D([], [], linestyle="none", label="before repair", **hollow),
        Line2D([], [], linestyle="none", color=INK, marker="o", label="after"),
    ]
    repairs = [repair for tower in towers for repair in tower.repairs]
    if any(not (_changed(repair) or repair.problem) for repair in repairs):
        meanings.append(Line2D([], [], label="left unchanged", **_UNCHANGED))
    if any(repair.problem for repair in repairs):
        meanings.append(Line2D([], [], label="unchanged for a problem", **_PROBLEM))
    figure.legend(handles=meanings, loc="outside lower center", ncols=4, **_LEGEND)
    if len(towers) == 1:
        return
    names = []
    for number, tower in enumerate(towers):
        style, name = series_style(number), textwrap.fill(tower.name, 24)
        names.append(
            Line2D([], [], linestyle="none", label=name, color=style.color, marker=style.marker)
        )
    figure.legend(handles=names, loc="outside upper center", ncols=min(3, len(names)), **_LEGEND)
