"""What a result directory says of itself: the files beside a smaller tower that pictures show.

Read before anything is drawn; the tower's weights are never touched. A compression command writes
the directory, `figures.mask` and `figures.repair` draw it.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from compress.allocation.allocate import Curve
from compress.errors import UserError
from compress.solving.repair import SublayerRepair
from pruning_mechanism import Mask
from pruning_mechanism.checkpoints.record import RECORD, read_fields

KINDS = {"heads": "attention", "neurons": "MLP"}
"""The kinds of sublayer, in the order in which a layer runs them, and what pictures call them."""
DIM_KINDS = ("qk_dims", "value_dims")
"""Kinds of curves that no picture shows yet: those of the sizes of heads."""
CURVES_SCHEMA = 1
Shown = TypeVar("Shown")


@dataclass(frozen=True)
class Record:
    """How a smaller tower was made, as far as a picture's title says."""

    rule: str
    constraint: str
    repair: str
    base: str
    corpus: str
    samples: int
    mac_fraction: float

    def __str__(self) -> str:
        return (
            f"{self.rule} {self.constraint}, repair {self.repair}: {Path(self.base).name} on "
            f"{self.corpus}, {self.samples:,} images, {self.mac_fraction:.1%} of MACs kept"
        )


@dataclass(frozen=True)
class ChosenCurve:
    """A sublayer's measured curve, and the number of units that the allocation kept by it.

    The sizes of the curve need not reach from none to all.
    """

    curve: Curve
    chosen: int

    @property
    def loss(self) -> float:
        """The loss at the chosen size, or at the measured size nearest to it."""
        sizes = self.curve.sizes
        return float(self.curve.at(np.clip([self.chosen], sizes[0], sizes[-1]))[0])


def load_record(directory: Path) -> Record:
    """Read `compression.json`.

    Raises:
        UserError, TowerError: the directory is no result, or its record is broken.
    """
    path = directory / RECORD
    if not path.is_file():
        raise UserError(
            f"{directory} is no result: it has no compression.json; "
            "make one with python -m compress.recover"
        )
    return read_fields(path, Record)


def load_mask(directory: Path) -> Mask:
    """Read `mask.safetensors`.

    Raises:
        TowerError: it isn't there or is no mask.
    """
    return Mask.load(directory / "mask.safetensors")


def load_repairs(directory: Path) -> list[SublayerRepair]:
    """Read `repair.json`: one entry per sublayer, going up the tower, without the projection.

    Raises:
        UserError: it isn't there, is something else, or the tower was not repaired.
    """
    path = directory / "repair.json"
    if not path.is_file():
        raise UserError(f"{directory} has no repair.json: its repair can't be drawn")
    repairs = _parse(
        path,
        lambda entries: [_repair(entry) for entry in entries if entry["kind"] != "projection"],
    )
    if not repairs:
        raise UserError(
            f"{directory} was not repaired: only a rescaled or reconstructed tower can be drawn"
        )
    return repairs


def load_curves(directory: Path, mask: Mask) -> list[ChosenCurve]:
    """Read `curves.json`; none where the rule measured none.

    Raises:
        UserError: the file is something else, or of another tower than the mask.
    """
    path = directory / "curves.json"
    if not path.is_file():
        return []
    curves = _parse(path, lambda content: _curves(content, mask))
    for drawn in curves:
        curve, layers = drawn.curve, len(mask.heads)
        if curve.layer >= layers or not 0 <= drawn.chosen <= curve.units >= curve.sizes[-1]:
            raise UserError(
                f"{path}: layer {curve.layer} keeps {drawn.chosen} {curve.kind}, its curve reaches "
                f"to {curve.sizes[-1]}, but the mask is of {layers} layers x {curve.units}"
            )
    return curves


def _parse(path: Path, build: Callable[[Any], list[Shown]]) -> list[Shown]:
    """What `build` makes of a JSON file, and one line if it can't."""
    try:
        return build(json.loads(path.read_text()))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{path} is not what a compression command writes ({reason})") from error


def _repair(entry: dict[str, Any]) -> SublayerRepair:
    """A sublayer's repair; its entry may hold more than a picture shows."""
    repair = SublayerRepair(**{field.name: entry[field.name] for field in fields(SublayerRepair)})
    _check_place(repair.layer, repair.kind)
    if not (repair.error_before >= 0 and repair.error_after >= 0):
        raise ValueError(f"the errors of layer {repair.layer} are not numbers from 0 up")
    return repair


def _curves(content: dict[str, Any], mask: Mask) -> list[ChosenCurve]:
    if content["schema"] != CURVES_SCHEMA:
        raise ValueError(f"schema {content['schema']}, expected {CURVES_SCHEMA}")
    return [_curve(entry, mask) for entry in content["curves"] if entry["kind"] not in DIM_KINDS]


def _curve(entry: dict[str, Any], mask: Mask) -> ChosenCurve:
    layer, kind, losses = entry["layer"], entry["kind"], tuple(map(float, entry["losses"]))
    _check_place(layer, kind)
    units = getattr(mask, kind).shape[1]
    curve = Curve(layer, kind, units, tuple(entry["sizes"]), losses)
    if len(curve.sizes) != len(losses) or not _ascending((-1, *curve.sizes)) or len(losses) < 2:
        raise ValueError(f"the sizes and losses of layer {curve.layer} make no curve")
    if not np.isfinite(losses).all():
        raise ValueError(f"the losses of layer {curve.layer} are not all numbers")
    return ChosenCurve(curve, entry["chosen"])


def _check_place(layer: int, kind: str) -> None:
    if not isinstance(layer, int) or layer < 0 or kind not in KINDS:
        raise ValueError(f"no sublayer is called {kind!r} of layer {layer!r}")


def _ascending(sizes: Sequence[int]) -> bool:
    return all(low < high for low, high in pairwise(sizes))
