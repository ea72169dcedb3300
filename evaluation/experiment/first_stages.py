"""The first stages of an experiment: compressed here by the methods asked for, or made before.

Stands between the rules and the cascade. A rule looks at the tower once, and all its constraints
and variants share what it found.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

from tqdm import tqdm

from commands.screen import printable
from compress.align import align_smaller
from compress.budgets.prices import Constraint
from compress.errors import UserError
from compress.making import reduced, smaller
from compress.making.dense import Base
from compress.making.keys import read_keys
from compress.making.options import AlignOptions, BaseOptions
from compress.making.reduced import ReduceRule, make_reduced
from compress.making.rule import Rule, make_smaller
from compress.making.smaller import Smaller
from compress.making.source import TARGET_FINGERPRINT, Source
from compress.solving.alignment import LEAST_IMAGES, too_few
from evaluation.reports.report import constraint_of
from pruning_mechanism import Compression, TowerError, read_record


@dataclass(frozen=True)
class FirstStage:
    """A first stage on disk, or in memory only, and what it was asked for."""

    method: str
    constraint: str
    constraint_kind: str | None
    constraint_value: float | None
    directory: Path | None
    seconds: float | None


@dataclass(frozen=True)
class Made:
    """A first stage in memory: how it was made, what writes it, and what didn't go as planned."""

    compression: Compression
    write: Callable[[Path], None]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pruning:
    """A pruning rule with its options, under the name that the report gives it.

    What it makes is aligned to the dense tower if `align` says so.
    """

    name: str
    rule: Rule
    options: BaseOptions
    align: AlignOptions

    repairs = True

    @property
    def aligns(self) -> bool:
        """Whether what it makes is aligned."""
        return self.align.align != "none"

    @property
    def captions(self) -> bool:
        """Whether it reads the calibration images' captions."""
        return self.rule.captions

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """What first stages are made under, one each."""
        return self.rule.constraints

    def possible(self, base: Base) -> "Pruning":
        """This method, if the base's tower can meet its constraints.

        Raises:
            UserError: it can't.
        """
        self.rule.check(base.towers[0])
        return self

    def make(self, base: Base, constraint: Constraint) -> Made:
        """Prune under one of the constraints, and align; the base stays as it is."""
        pruned = make_smaller(base, self.rule, constraint, self.options)
        notes = _wild_repairs(pruned)
        if not self.aligns:
            return Made(pruned.compression, partial(smaller.write, pruned, base), notes)
        made = align_smaller(base, pruned, self.align)
        return Made(made.compression, partial(reduced.write, made, Source.of(base)), notes)


@dataclass(frozen=True)
class Reducing:
    """A rule that leaves out tokens or layers, with its options, under the report's name for it."""

    name: str
    rule: ReduceRule
    options: AlignOptions

    repairs = False
    captions = False

    @property
    def aligns(self) -> bool:
        """Whether what it makes is aligned."""
        return self.options.align != "none"

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """What first stages are made under, one each."""
        return self.rule.settings

    def possible(self, base: Base) -> "Reducing":
        """This method with those of its constraints that the base's tower can meet.

        Rules differ in how little they can leave of a tower, so the others are said and left out.

        Raises:
            UserError: there is none.
        """
        left, problem = [], None
        for setting in self.rule.settings:
            try:
                self.rule.check(base.model.config, setting)
                left.append(setting)
            except (UserError, TowerError) as error:
                problem = problem or error
                _leave_out(self.name, setting, error)
        if not left:
            raise UserError(f"--methods {self.name}: {problem}")
        return replace(self, rule=replace(self.rule, settings=tuple(left)))

    def make(self, base: Base, constraint: Constraint) -> Made:
        """Reduce and align under one of the constraints; the base stays as it is."""
        source = Source.of(base)
        made = make_reduced(source, self.rule, constraint, self.options)
        record = made.compression
        return Made(record, partial(reduced.write, made, source), record.notes)


Method: TypeAlias = Pruning | Reducing


def possible(methods: Sequence[Method], base: Base) -> list[Method]:
    """The methods, each with those of its constraints that the base's tower can meet.

    Raises:
        UserError: one can't be used on this base.
    """
    images = len(base.calibration)
    if images < LEAST_IMAGES and any(method.aligns for method in methods):
        raise too_few(images)
    return [method.possible(base) for method in methods]


def make(methods: Sequence[Method], base: Base, directory: Path) -> list[FirstStage]:
    """Make all first stages of all methods, and keep them in a directory each.

    One that can't be made is said and left out.

    Raises:
        UserError: none can be made.
    """
    stages, problem = [], None
    for method in methods:
        for constraint in method.constraints:
            try:
                stages.append(_compressed(method, constraint, base, directory))
            except UserError as error:
                problem = problem or error
                _leave_out(method.name, constraint, error)
    if problem and not stages:
        raise problem
    return stages


def _compressed(method: Method, constraint: Constraint, base: Base, directory: Path) -> FirstStage:
    made, label = method.make(base, constraint), constraint.label
    for note in made.notes:
        tqdm.write(f"note: {method.name}, {label}: {note}")
    place = directory / f"{method.name}-{constraint.slug}"
    place.mkdir(parents=True)
    made.write(place)
    return FirstStage(
        method.name, label, constraint.kind, constraint.value, place, made.compression.seconds
    )


def _leave_out(name: str, constraint: Constraint, error: Exception) -> None:
    tqdm.write(f"left out: {name}, {constraint.label}: {error}")


def _wild_repairs(pruned: Smaller) -> tuple[str, ...]:
    record = pruned.compression
    if not record.notes:
        return ()
    return (
        f"{record.repair} had no tame solution in {len(record.notes)} of {len(pruned.repairs)} "
        "sublayers, which stay as cut; compression.json names them",
    )


def made_before(path: Path) -> FirstStage:
    """A first stage that lies in a directory; its record says how it was made.

    Raises:
        UserError: there is no such directory.
        TowerError: its record can't be read.
    """
    if not path.is_dir():
        raise UserError(f"--stage {path}: no such directory")
    record = read_record(path)
    if record is None:
        return FirstStage(path.resolve().name, "", None, None, path, None)
    kind, value = constraint_of(record.constraint)
    return FirstStage(record.rule, record.constraint, kind, value, path, record.seconds)


def belongs_to(directory: Path, full_tower: str) -> bool | None:
    """Whether a first stage was made from, or aligned to, a full tower, by its record.

    Args:
        directory: of the first stage.
        full_tower: what identifies the full tower's weights.

    Returns:
        None if the stage has no record.
    """
    record = read_record(directory)
    if record is None:
        return None
    return full_tower in (record.base_fingerprint, record.settings.get(TARGET_FINGERPRINT))


def seen(stage: FirstStage) -> set[str]:
    """Keys of the images that a first stage was calibrated on, as far as it says."""
    return set(read_keys(stage.directory))


def refuse_overlap(calibration: set[str], evaluation: set[str]) -> None:
    """Raise `UserError` if an image was calibrated on and is to be evaluated on."""
    if both := sorted(calibration & evaluation):
        raise UserError(
            f"{len(both):,} images are in both the calibration and the evaluation data, such as "
            f"{printable(both[0])}: choose another --split or --calibration-split"
        )
