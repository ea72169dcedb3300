"""The first stages of an experiment: compressed here by the methods asked for, or made before.

Stands between the rules and the cascade. A rule looks at the tower once, and all its settings and
variants share what it found.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from commands.published import published_name
from commands.screen import printable
from compress.budgets.settings import Setting
from compress.errors import UserError
from compress.making.keys import read_keys
from compress.making.make import Result, make, problems, write
from compress.making.rule import Rule
from compress.making.source import FULL_FINGERPRINT, Needs, Source
from compress.options import FullTowerOptions, RepairOptions
from evaluation.reports.row import constraint_of
from pruning_mechanism import TowerError, read_record
from pruning_mechanism.checkpoints.from_open_clip.converting import directory_of


@dataclass(frozen=True)
class FirstStage:
    """A first stage on disk, or in memory only, and what it was asked for.

    `label`: how it is to run, in words, where that tells it from the same stage run otherwise.
    """

    method: str
    constraint: str
    constraint_kind: str | None
    constraint_value: float | None
    directory: Path | None
    seconds: float | None
    label: str = ""

    @property
    def called(self) -> str:
        """The method, and how it is to run, as in "fisher as scaled openvino bfloat16"."""
        return f"{self.method} as {self.label}" if self.label else self.method

    @property
    def name(self) -> str:
        """What it is called, as in "fisher MAC 0.65"."""
        return f"{self.called} {self.constraint}".strip()


@dataclass(frozen=True)
class KeptStage(FirstStage):
    """A first stage on disk."""

    directory: Path


@dataclass(frozen=True)
class Method:
    """A rule with its options, under the name that the report gives it."""

    name: str
    rule: Rule
    options: FullTowerOptions

    @property
    def aligns(self) -> bool:
        """Whether what it makes is aligned."""
        return self.options.align != "none"

    @property
    def repairs(self) -> bool:
        """Whether it takes units away, which a repair goes over."""
        return isinstance(self.options, RepairOptions)

    @property
    def needs(self) -> Needs:
        """What it asks of a source."""
        return self.rule.needs | Needs.of(self.options.align)

    @property
    def settings(self) -> tuple[Setting, ...]:
        """What first stages are made for, one each."""
        return self.rule.settings

    def possible(self, source: Source) -> "Method":
        """This method with those of its settings that the source can be made to meet.

        Rules differ in how little they can leave of a tower, so the others are reported and
        skipped.

        Raises:
            UserError: there is none.
        """
        left, problem = {}, None
        for setting, asked in self.rule.asked.items():
            try:
                self.rule.check(source, asked)
                left[setting] = asked
            except (UserError, TowerError) as error:
                problem = problem or error
                _skip(self.name, setting, error)
        if not left:
            raise UserError(f"--methods {self.name}: {problem}")
        return replace(self, rule=replace(self.rule, asked=left))


def possible(methods: Sequence[Method], source: Source) -> list[Method]:
    """The methods, each with those of its settings that the source can be made to meet.

    Raises:
        UserError: one can't be used on this source.
    """
    return [method.possible(source) for method in methods]


def make_all(methods: Sequence[Method], source: Source, directory: Path) -> list[KeptStage]:
    """Make all first stages of all methods, and keep them in a directory each.

    One that can't be made is reported and skipped.

    Raises:
        UserError: none can be made.
    """
    stages, problem = [], None
    for method in methods:
        for setting in method.settings:
            try:
                stages.append(_made(method, setting, source, directory))
            except UserError as error:
                problem = problem or error
                _skip(method.name, setting, error)
    if problem and not stages:
        raise problem
    return stages


def _made(method: Method, setting: Setting, source: Source, directory: Path) -> KeptStage:
    result = make(source, method.rule, setting, method.options.finish)
    for note in _notes(result):
        tqdm.write(f"note: {method.name}, {setting.label}: {note}")
    place = directory / f"{method.name}-{setting.slug}"
    place.mkdir(parents=True)
    write(result, source, place)
    seconds = result.compression.seconds
    return KeptStage(method.name, setting.label, setting.kind, setting.value, place, seconds)


def _notes(result: Result) -> list[str]:
    """What to say of a result at once: wild repairs only in number."""
    wild = problems(result.towers)
    notes = [note for note in result.compression.notes if note not in wild]
    if wild:
        notes.append(
            f"{result.compression.repair} had no tame solution in {len(wild)} of "
            f"{len(result.repairs)} sublayers, which stay as cut; compression.json names them"
        )
    return notes


def _skip(name: str, setting: Setting, error: Exception) -> None:
    tqdm.write(f"skipped: {name}, {setting.label}: {error}")


def made_before(path: Path, flag: str = "--stage") -> KeptStage:
    """A stage that lies in a directory; its record says how it was made.

    Args:
        path: of the directory.
        flag: that named it.

    Raises:
        UserError: there is no such directory.
        TowerError: its record can't be read.
    """
    if not Path(directory_of(path)).is_dir():
        raise UserError(f"{flag} {path}: no such directory")
    record = read_record(path)
    if record is None:
        return KeptStage(published_name(path), "", None, None, path, None)
    kind, value = constraint_of(record.constraint)
    return KeptStage(record.rule, record.constraint, kind, value, path, record.seconds)


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
    return full_tower in (record.base_fingerprint, record.settings.get(FULL_FINGERPRINT))


def seen(stage: KeptStage) -> set[str]:
    """Keys of the images that a first stage was calibrated on, as far as it says."""
    return set(read_keys(stage.directory))


def refuse_overlap(calibration: set[str], evaluation: set[str]) -> None:
    """Raise `UserError` if an image was calibrated on and is to be evaluated on."""
    if both := sorted(calibration & evaluation):
        raise UserError(
            f"{len(both):,} images are in both the calibration and the evaluation data, such as "
            f"{printable(both[0])}: choose another --split or --calibration-split"
        )
