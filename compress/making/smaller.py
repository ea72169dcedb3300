"""Smaller towers as a rule leaves them: what was decided and done, and how it is kept on disk.

Stands after repair: a result directory is an ordinary checkpoint with, beside it, the mask, the
repair's errors, the curves and the latency table that each tower's allocation went by.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table
from torch import nn

from compress.allocation.allocate import Curve
from compress.making.dense import Base
from compress.making.keys import write_keys
from compress.solving.repair import SublayerRepair
from pruning_mechanism import Compression, Mask, TowerKind, macs, parameters, save
from pruning_mechanism.costs.latency import LatencyTable

ENDINGS = {"vision": "", "text": "-text"}
"""What the names of files about a tower end in."""


@dataclass(frozen=True)
class Plan:
    """What a rule decided for one constraint, and what it was decided by.

    `made` is the tower cut and repaired so, if the rule had to make it to decide. `model` is the
    dense one in the coordinates that the mask's head dimensions are of; None: as it was loaded.
    """

    mask: Mask
    curves: Sequence[Curve] = ()
    table: LatencyTable | None = None
    made: tuple[nn.Module, list[SublayerRepair]] | None = None
    model: nn.Module | None = None


@dataclass(frozen=True)
class SmallerTower:
    """What was planned for one tower, and how well its repair came out."""

    kind: TowerKind
    plan: Plan
    repairs: Sequence[SublayerRepair]


@dataclass(frozen=True)
class Smaller:
    """A model in memory with smaller towers, and how it was made."""

    model: nn.Module
    towers: tuple[SmallerTower, ...]
    compression: Compression

    @property
    def repairs(self) -> list[SublayerRepair]:
        """Those of all towers that were made smaller."""
        return [repair for tower in self.towers for repair in tower.repairs]


def write(smaller: Smaller, base: Base, directory: Path) -> None:
    """Write smaller towers, their masks, their record and what they have seen into a directory."""
    save(smaller.model, directory, base.processor, smaller.compression)
    write_keys(directory, base.calibration.corpus["key"])
    write_decisions(smaller, directory)


def write_decisions(smaller: Smaller, directory: Path) -> None:
    """Write what was kept of each tower, and by what, beside a checkpoint."""
    for tower in smaller.towers:
        plan, ending = tower.plan, ENDINGS[tower.kind]
        plan.mask.save(directory / f"mask{ending}.safetensors")
        _write_json(directory / f"repair{ending}.json", [asdict(each) for each in tower.repairs])
        if plan.curves:
            _write_json(directory / f"curves{ending}.json", _curves(plan))
        if plan.table:
            plan.table.save(directory / f"latency{ending}.json")


def _curves(plan: Plan) -> dict:
    """The curves that a mask was allocated by, each with the size chosen."""
    entries = [
        asdict(curve) | {"chosen": int(getattr(plan.mask, curve.kind)[curve.layer].sum())}
        for curve in plan.curves
    ]
    return {"schema": 1, "metric": "1 - cos to the dense embedding", "curves": entries}


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")


def summary(base: Base, smaller: Smaller) -> Table:
    """The short table that a rule's command ends with."""
    table = Table(title=f"{smaller.compression.rule}, {smaller.compression.constraint}")
    for heading in ("", "tower", "heads", "neurons", "GMACs", "share", "parameters"):
        table.add_column(heading, justify="right")
    for tower in smaller.towers:
        dense = Mask.dense(base.model.config, tower.kind)
        rows = (("dense", base.model, dense), ("smaller", smaller.model, tower.plan.mask))
        for name, model, mask in rows:
            cost = macs(model, tower.kind)
            table.add_row(
                name,
                tower.kind,
                f"{int(mask.heads.sum()):,}",
                f"{int(mask.neurons.sum()):,}",
                f"{cost.encoder / 1e9:.3f}",
                f"{cost.fraction:.3f}",
                f"{parameters(model, tower.kind):,}",
            )
    return table
