"""What every rule that leaves out tokens or layers does around its own choice: reduce, align, save.

Stands where `compress.making.rule` stands for pruning. Such a rule changes what a tower does rather
than what it keeps, so it works on towers that are pruned or reduced already, and what comes out is
one checkpoint whatever was done before.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.table import Table
from torch import Tensor, nn

from commands.inputs import inputs_of
from commands.published import published, published_corpus
from compress.budgets.prices import Constraint
from compress.errors import UserError
from compress.making.keys import write_keys
from compress.making.options import DEMO_MODEL, AlignOptions
from compress.making.results import Outputs, Said, result_directories
from compress.making.source import Source, open_source
from compress.solving.alignment import align_features, notes_of, pooled_features
from compress.solving.ridge import Ridge
from pruning_mechanism import (
    Compression,
    Reduction,
    Shape,
    TowerError,
    mac_fraction,
    macs,
    parameters,
    reduce,
    save,
)
from pruning_mechanism.checkpoints.checkpoint import cast, stored_dtype
from pruning_mechanism.families import tower_config


@dataclass(frozen=True)
class Step:
    """What a rule makes of a first stage: the model, and how its images are prepared from now on.

    `pooled` is what it reads off the calibration images, float32 [n, 2d], and `targets` what it is
    aligned to, float32 [n, e], where the rule came to know them on its way. `notes` are for the
    reader of the record; `files` writes what else belongs beside the model.
    """

    model: nn.Module
    processor: object
    pooled: Tensor | None = None
    targets: Tensor | None = None
    notes: tuple[str, ...] = ()
    files: Callable[[Path], None] | None = None


def unchecked(_config: object, _setting: Constraint) -> None:
    """The check of a rule that knows what a tower can be made to only by making it."""


@dataclass(frozen=True)
class ReduceRule:
    """A way to make a first stage cheaper, at one of several settings.

    `check` raises `UserError` or `TowerError` if a tower of that configuration can't be made to
    meet a setting, as far as that is known before the work.
    """

    name: str
    settings: tuple[Constraint, ...]
    step: Callable[[Source, Constraint], Step]
    check: Callable[[object, Constraint], None] = unchecked


@dataclass(frozen=True)
class Reduced:
    """A first stage in memory, reduced and aligned, and how it was made."""

    step: Step
    alignment: Ridge | None
    compression: Compression


def by_reduction(
    choose: Callable[[object, Constraint], Reduction],
) -> Callable[[Source, Constraint], Step]:
    """The step of a rule that a configuration and a setting decide, whatever the images."""

    def step(source: Source, setting: Constraint) -> Step:
        reduction = choose(source.model.config, setting)
        return Step(reduce(source.model, reduction), source.processor)

    return step


def check_of(
    choose: Callable[[object, Constraint], Reduction],
) -> Callable[[object, Constraint], None]:
    """The check of a rule that a configuration and a setting decide, whatever the images."""

    def check(config: object, setting: Constraint) -> None:
        choose(config, setting).check(config)

    return check


def within(config, candidates: Sequence[Reduction], constraint: Constraint) -> Reduction:
    """The candidate of most MACs that keeps a MAC constraint.

    Raises:
        UserError: none does.
    """
    constraint.check()
    shares = [mac_fraction(config, each) for each in candidates]
    fitting = [index for index, share in enumerate(shares) if share <= constraint.value]
    if not fitting:
        raise UserError(
            f"--mac-constraint {constraint.value:g}: the least that this rule leaves of this tower "
            f"is {min(shares):.3f} of its MACs"
        )
    return candidates[max(fitting, key=shares.__getitem__)]


def settings_of(
    kind: str, values: Sequence[float], mac_constraints: Sequence[float]
) -> tuple[Constraint, ...]:
    """A rule's own settings, or the MAC constraints if there are any."""
    if mac_constraints:
        kind, values = "MAC", mac_constraints
    return tuple(Constraint(kind, each) for each in dict.fromkeys(values))


def make_reduced(
    source: Source, rule: ReduceRule, setting: Constraint, options: AlignOptions
) -> Reduced:
    """Reduce and align for one setting; the source stays as it is."""
    source.ledger.open_bill()
    try:
        step = rule.step(source, setting)
    except TowerError as error:
        raise UserError(f"{rule.name} {setting.label}: {error}") from error
    alignment = None
    if options.align == "ridge":
        pooled = step.pooled
        if pooled is None:
            images = replace(source.calibration, processor=step.processor)
            pooled = pooled_features(step.model, images, f"{rule.name} {setting.label}: align")
        targets = source.targets() if step.targets is None else step.targets
        model, alignment = align_features(
            step.model, pooled, targets, options.align_features, options.seed
        )
        notes = (*step.notes, *notes_of(alignment, len(source.calibration)))
        step = replace(step, model=model, notes=notes)
    model, cast_notes = cast(step.model, stored_dtype(source.path))
    cost = macs(model)
    compression = Compression(
        rule=rule.name,
        constraint=setting.label,
        repair="none",
        base=source.base,
        base_fingerprint=source.base_fingerprint,
        corpus=f"{published_corpus(options.corpus)} {options.calibration_split}",
        samples=len(source.calibration),
        seed=options.seed,
        macs=cost.encoder,
        mac_fraction=cost.fraction,
        tower_macs=cost.tower,
        parameters=parameters(model),
        seconds=source.ledger.bill(),
        align=options.align,
        chain=(*source.chain, f"{rule.name} {setting.label}"),
        notes=(*source.notes, *step.notes, *cast_notes),
        unreadable_images=source.calibration.unreadable,
        settings=published(options) | source.settings,
    )
    return Reduced(replace(step, model=model), alignment, compression)


def write(reduced: Reduced, source: Source, directory: Path) -> None:
    """Write a reduced first stage, its record and what it has seen into a directory."""
    save(reduced.step.model, directory, reduced.step.processor, reduced.compression)
    write_keys(directory, [*source.seen, *source.calibration.corpus["key"]])
    if reduced.step.files:
        reduced.step.files(directory)


def summary(source: Source, reduced: Reduced) -> Table:
    """The short table that a rule's command ends with."""
    table = Table(title=" → ".join(reduced.compression.chain))
    headings = ("", "layers", "tokens in", "tokens out", "GMACs", "share", "parameters")
    for heading in headings:
        table.add_column(heading, justify="right")
    for name, model in (("before", source.model), ("reduced", reduced.step.model)):
        cost, config = macs(model), model.config
        shape = Shape.of(config)
        table.add_row(
            name,
            str(tower_config(config, "vision").num_hidden_layers),
            f"{shape.layer_tokens[0].attention:g}",
            f"{shape.layer_tokens[-1].mlp:g}",
            f"{cost.encoder / 1e9:.3f}",
            f"{cost.fraction:.3f}",
            f"{parameters(model):,}",
        )
    return table


def run_reduce(rule: ReduceRule, options: AlignOptions) -> None:
    """The command of a rule that leaves out tokens or layers."""
    before = "" if options.model == DEMO_MODEL else f"{Path(options.model).resolve().name}-"
    directories = result_directories(rule.settings, f"{before}{rule.name}", options.output)
    outputs = Outputs(directories, options.overwrite, inputs_of(options))
    outputs.check()
    source = open_source(options)
    for setting in directories:
        rule.check(source.model.config, setting)

    def make(setting: Constraint, directory: Path) -> Said:
        reduced = make_reduced(source, rule, setting, options)
        write(reduced, source, directory)
        said = [summary(source, reduced)]
        if (found := reduced.alignment) and not found.as_it_was:
            said.append(
                "mean squared distance to the last stage's embeddings: "
                f"{found.before:.4g} before the alignment, {found.after:.4g} after it, "
                f"{found.left_out:.4g} on images left out"
            )
        return Said(reduced.compression.notes, said)

    outputs.write(source.calibration.unreadable, make)
