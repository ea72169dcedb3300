"""From a source to a result: a rule's step, then repair, alignment, cost and record; then files.

The one way in which results are made and written, whatever the rule.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from compress.allocation.plan import Plan
from compress.budgets.budgets import SecondBudget
from compress.budgets.settings import Setting
from compress.choices import Finish, towers_called
from compress.errors import UserError
from compress.making.keys import write_keys
from compress.making.rule import Cut, Rule, Step
from compress.making.source import Source
from compress.making.timing import step_of
from compress.solving.alignment import align_features, notes_of, pooled_features
from compress.solving.repair import SublayerRepair, repair_tower
from pruning_mechanism import (
    Compression,
    Shape,
    Tower,
    TowerError,
    TowerKind,
    mac_share,
    macs,
    parameters,
    save,
)
from pruning_mechanism.checkpoints.checkpoint import cast
from pruning_mechanism.protocols import Processor
from pruning_mechanism.ridge import Ridge

ENDINGS: Mapping[TowerKind, str] = {"vision": "", "text": "-text"}
"""What the names of files about a tower end in."""


@dataclass(frozen=True)
class Repaired:
    """A tower that lost units: by which plan, and how well its repair came out."""

    kind: TowerKind
    plan: Plan
    repairs: Sequence[SublayerRepair] = ()


@dataclass(frozen=True)
class Result:
    """What a rule made, in memory: the model, what belongs beside it, and how it was made."""

    model: PreTrainedModel
    processor: Processor
    compression: Compression
    towers: tuple[Repaired, ...]
    alignment: Ridge | None
    step: Step

    @property
    def repairs(self) -> list[SublayerRepair]:
        """Those of all towers that lost units."""
        return [repair for tower in self.towers for repair in tower.repairs]


def make(source: Source, rule: Rule, setting: Setting, finish: Finish) -> Result:
    """Make one result; the source stays as it is.

    The seconds on record are what this result alone would have taken: what was made once, for an
    earlier one, is counted again.

    Raises:
        UserError: the setting can't be met.
    """
    source.cache.bill.open()
    title = f"{rule.name} {setting.label}"
    try:
        step = step_of(source, rule, rule.asked[setting], finish)
    except TowerError as error:
        raise UserError(f"{title}: {error}") from error
    source = step.source or source
    towers = tuple(repaired(step.model, cut, finish, f"{title}: repair") for cut in step.cuts)
    stored, model, alignment = source.stored_dtype or source.model.dtype, step.model, None
    if finish.align == "ridge" and not step.settled:
        if step.cuts:  # aligned as it is computed once it is loaded
            model, _ = cast(model, stored)
            model.to(source.model.dtype)  # type: ignore[arg-type]  # its wrapper hides self
        model, alignment = _aligned(source, step, model, finish, f"{title}: align")
        notes = notes_of(alignment, len(source.calibration))
        step = replace(step, notes=(*step.notes, *notes))
    model, cast_notes = cast(model, stored)
    notes = (*source.notes, *step.notes, *problems(towers), *cast_notes)
    record = _record(source, rule, setting, finish, step, model)
    compression = replace(record, seconds=source.cache.bill.seconds(), notes=notes)
    return Result(model, step.processor, compression, towers, alignment, step)


def repaired(model: PreTrainedModel, cut: Cut, finish: Finish, progress: str) -> Repaired:
    """Repair a tower that lost units, in place."""
    subject = cut.subject
    if finish.repair == "none":
        return Repaired(subject.kind, cut.plan)
    weights = subject.weights() if finish.repair == "reconstruct" else None
    images = subject.calibration.first(finish.repair_samples)
    smaller = Tower.of(model, subject.kind)
    repairs = repair_tower(subject.tower, smaller, images, finish.repair, progress, weights)
    return Repaired(subject.kind, cut.plan, repairs)


def _aligned(
    source: Source, step: Step, model: PreTrainedModel, finish: Finish, progress: str
) -> tuple[PreTrainedModel, Ridge]:
    """Align a model's projection to the full tower's embeddings."""
    pooled, wanted = step.pooled, step.embeddings
    if pooled is None:
        images = replace(source.calibration, processor=step.processor)
        pooled = pooled_features(model, images, progress, finish.align_tokens)
    if wanted is None:
        wanted = source.full_embeddings()
    return align_features(model, pooled, wanted, finish.align_features, source.sampling.seed)


def problems(towers: Sequence[Repaired]) -> list[str]:
    """What didn't go as planned when towers were repaired."""
    return [
        f"{tower.kind} tower, {repair.problem}"
        for tower in towers
        for repair in tower.repairs
        if repair.problem
    ]


def _record(
    source: Source, rule: Rule, setting: Setting, finish: Finish, step: Step, model: PreTrainedModel
) -> Compression:
    """The record, but for its seconds and notes."""
    costs = [macs(model, kind) for kind in source.kinds]
    aligned = bool(step.cuts) and finish.align != "none"
    asked = rule.asked[setting]
    runs_in = asked.deployment if isinstance(asked, SecondBudget) else source.deployment
    done = (f"{rule.name} {setting.label}", *((f"align {finish.align}",) if aligned else ()))
    return Compression(
        rule=f"{rule.name}+aligned" if aligned else rule.name,
        constraint=setting.label,
        repair=finish.repair if step.cuts else "none",
        base=source.base,
        base_fingerprint=source.base_fingerprint,
        corpus=source.sampling.recorded,
        samples=len(source.calibration),
        seed=source.sampling.seed,
        macs=sum(cost.encoder for cost in costs),
        mac_fraction=share_of(source, model, source.kinds),
        tower_macs=sum(cost.tower for cost in costs),
        parameters=sum(parameters(model, kind) for kind in source.kinds),
        seconds=0.0,
        tower=towers_called(source.kinds),
        align=finish.align,
        reads=source.calibration.reads,
        runtime=runs_in.runtime,
        dtype=runs_in.dtype,
        chain=(*source.chain, *done),
        unreadable_images=source.calibration.unreadable,
        settings={**finish.settings, **source.settings},
    )


def share_of(source: Source, model: PreTrainedModel, kinds: Sequence[TowerKind]) -> float:
    """MACs of towers, as a share of the dense ones' that they come from or stand before."""
    if tuple(kinds) == ("vision",):
        return mac_share(model, source.full.tower.model)
    dense = [Shape.of(model.config, dense=True, tower=kind) for kind in kinds]
    encoder = sum(macs(model, kind).encoder for kind in kinds)
    return encoder / sum(shape.encoder_macs for shape in dense)


def write(result: Result, source: Source, directory: Path) -> None:
    """Write a result, what it was decided by, and which images it has seen into a directory."""
    save(result.model, directory, result.processor, result.compression)
    write_keys(directory, [*source.seen, *source.calibration.corpus["key"]])
    for tower in result.towers:
        plan, ending = tower.plan, ENDINGS[tower.kind]
        plan.mask.save(directory / f"mask{ending}.safetensors")
        _write_json(
            directory / f"repair{ending}.json", [asdict(repair) for repair in tower.repairs]
        )
        if plan.curves:
            _write_json(directory / f"curves{ending}.json", _curves(plan))
        if plan.table:
            plan.table.save(directory / f"latency{ending}.json")
    if result.step.files:
        result.step.files(directory)


def _curves(plan: Plan) -> dict[str, Any]:
    """The curves that a mask was allocated by, each with the size chosen."""
    entries = [
        asdict(curve) | {"chosen": int(getattr(plan.mask, curve.kind)[curve.layer].sum())}
        for curve in plan.curves
    ]
    return {"schema": 1, "metric": "1 - cos to the dense embedding", "curves": entries}


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
