"""What every pruning rule does around its own choice: plan, cut, repair, save.

A rule plans a mask for each constraint and tower; `make_smaller` makes smaller towers out of these
and says how they came about. `run_rule` is the command around it.
"""

import copy
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from commands.inputs import inputs_of
from commands.published import published, published_corpus, published_name
from compress.budgets.prices import Constraint
from compress.budgets.structures import USUAL, Structure, check_reach
from compress.errors import UserError
from compress.making.dense import Base, DenseTower, open_base
from compress.making.options import BaseOptions
from compress.making.results import Outputs, Said, result_directories
from compress.making.smaller import Plan, Smaller, SmallerTower, summary, write
from compress.solving.repair import SublayerRepair, repair_tower
from pruning_mechanism import Compression, Mask, Tower, macs, parameters, prune
from pruning_mechanism.checkpoints.checkpoint import cast, fingerprint, stored_dtype


@dataclass(frozen=True)
class Rule:
    """A way to choose what stays: `plan` gives a tower's mask for one of the constraints.

    `captions` says whether the rule needs some, and the other tower; `structures` what may go.
    """

    name: str
    constraints: tuple[Constraint, ...]
    plan: Callable[[DenseTower, Constraint], Plan]
    captions: bool = False
    structures: Collection[Structure] = USUAL

    def check(self, dense: DenseTower) -> None:
        """Raise `UserError` unless the tower can meet the constraints."""
        for each in self.constraints:
            each.check_tower(dense.model.config, dense.kind)
            check_reach(self.structures, each, dense.model.config, dense.kind)


def make_smaller(base: Base, rule: Rule, constraint: Constraint, options: BaseOptions) -> Smaller:
    """Plan, cut and repair for one constraint, tower by tower; the base stays as it is.

    The seconds on record are what this result alone would have taken: whatever was made once, for
    an earlier constraint, is counted again.
    """
    base.ledger.open_bill()
    title = f"{rule.name} {constraint.label}: repair"
    model, towers = base.model, []
    for dense in base.towers:
        plan = rule.plan(dense, constraint)
        if plan.made and model is base.model:
            model, repairs = plan.made
        else:
            model, repairs = cut(dense, plan.mask, options, title, model, plan.model)
        towers.append(SmallerTower(dense.kind, plan, repairs))
    model, cast_notes = cast(model, stored_dtype(base.path))
    compression = Compression(
        rule=rule.name,
        constraint=constraint.label,
        repair=options.repair,
        base=published_name(base.path),
        base_fingerprint=fingerprint(base.path, base.model),
        corpus=f"{published_corpus(options.corpus)} {options.calibration_split}",
        samples=len(base.calibration),
        seed=options.seed,
        **_costs(base, model),
        seconds=base.ledger.bill(),
        tower=options.tower,
        notes=(*_problems(towers), *cast_notes),
        unreadable_images=base.calibration.unreadable,
        settings=published(options),
    )
    return Smaller(model, tuple(towers), compression)


def _problems(towers: Sequence[SmallerTower]) -> list[str]:
    """What didn't go as planned when the towers were repaired."""
    return [
        f"{each.kind} tower, {repair.problem}"
        for each in towers
        for repair in each.repairs
        if repair.problem
    ]


def _costs(base: Base, model: nn.Module) -> dict[str, float]:
    """What `Compression` says of the towers' costs, summed over those that were made smaller."""
    kinds = [each.kind for each in base.towers]
    costs = [macs(model, kind) for kind in kinds]
    encoder = sum(each.encoder for each in costs)
    return {
        "macs": encoder,
        "mac_fraction": encoder / sum(macs(base.model, kind).encoder for kind in kinds),
        "tower_macs": sum(each.tower for each in costs),
        "parameters": sum(parameters(model, kind) for kind in kinds),
    }


def cut(
    dense: DenseTower,
    mask: Mask,
    options: BaseOptions,
    progress: str | None = None,
    model: nn.Module | None = None,
    turned: nn.Module | None = None,
) -> tuple[nn.Module, list[SublayerRepair]]:
    """A model with the dense tower pruned to `mask` and repaired as the options say.

    `model` is the dense tower's own, or one whose other tower has been made smaller already;
    `turned` the dense one in the coordinates that the mask is of, if these are others.
    """
    model = model or dense.model
    if turned is not None:
        model = turned if model is dense.model else _with_tower(model, Tower.of(turned, dense.kind))
    smaller = prune(model, mask, dense.kind)
    if options.repair == "none":
        return smaller, []
    weights = dense.weights() if options.repair == "reconstruct" else None
    calibration = dense.calibration.first(options.repair_samples)
    tower = Tower.of(smaller, dense.kind)
    return smaller, repair_tower(dense.tower, tower, calibration, options.repair, progress, weights)


def _with_tower(model: nn.Module, tower: Tower) -> nn.Module:
    """A copy of a model with the weights of a tower of the same shape as its own."""
    copied = copy.deepcopy(model)
    for own, given in zip(Tower.of(copied, tower.kind).modules, tower.modules, strict=True):
        own.load_state_dict(given.state_dict())
    return copied


def run_rule(rule: Rule, options: BaseOptions) -> None:
    """The command of a pruning rule, whose options have `output` and `overwrite`."""
    name = rule.name if options.tower == "vision" else f"{rule.name}-{options.tower}"
    directories = result_directories(rule.constraints, name, options.output)
    outputs = Outputs(directories, options.overwrite, inputs_of(options))
    outputs.check()
    if options.text_model and not rule.captions and options.tower == "vision":
        raise UserError(f"--text-model is not read: {rule.name} reads no captions; leave it out")
    base = open_base(options, rule.captions)
    for dense in base.towers:
        rule.check(dense)

    def make(constraint: Constraint, directory: Path) -> Said:
        smaller = make_smaller(base, rule, constraint, options)
        write(smaller, base, directory)
        return Said(smaller.compression.notes, [summary(base, smaller)])

    outputs.write(base.calibration.unreadable, make)
