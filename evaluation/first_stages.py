"""The first stages of an experiment: compressed here by the methods asked for, or made before.

Stands between the rules and the cascade. A rule scores the tower once, and all its constraints
and variants share the scores.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import get_args

from tqdm import tqdm

from compress import baseline, fisher, recover, sensitivity
from compress.command import UserError
from compress.dense import Base
from compress.objective import ObjectiveName
from compress.options import Allocation, BaseOptions, BudgetOptions
from compress.repair import Repair
from compress.rule import Rule, make_smaller
from compress.smaller import CALIBRATION_KEYS, write
from compress.structures import Structure


@dataclass(frozen=True)
class FirstStage:
    """A first stage on disk, or in memory only, and what it was asked for."""

    method: str
    constraint: str
    constraint_value: float | None
    directory: Path | None
    seconds: float | None


@dataclass(frozen=True)
class Kind:
    """A rule that an experiment can name: its options, and what makes a `Rule` of them."""

    options: type[BaseOptions]
    rule: Callable[[BaseOptions], Rule]
    importance: str | None = None


KINDS = {
    "recover": Kind(BudgetOptions, recover.rule),
    "fisher": Kind(fisher.ScoreOptions, fisher.rule),
    "sensitivity": Kind(sensitivity.HeadOptions, sensitivity.rule),
    **{
        name: Kind(baseline.EstimatorOptions, baseline.rule, name)
        for name in get_args(baseline.Estimator)
    },
}
WORDS = {
    **dict.fromkeys(get_args(Repair), "repair"),
    **dict.fromkeys(get_args(Allocation), "allocate"),
    **dict.fromkeys(get_args(ObjectiveName), "objective"),
    "head_dims": "structures",
}
VALUES = {"head_dims": get_args(Structure)}
"""What a word stands for, if not for itself."""
NUMBERS = ("rounds", "steps")


@dataclass(frozen=True)
class Method:
    """A rule with the options that it runs with, under the name that the report gives it."""

    name: str
    rule: Rule
    options: BaseOptions


def parse_method(name: str, options: BaseOptions) -> Method:
    """The method that `fisher`, `fisher+rescale`, `recover+uniform`, `recover+rounds=0` … mean.

    The first word is a rule; the others change its options: a repair, an allocation, an objective,
    a number of rounds or steps, `head_dims` for all structures that may go, or `heads` for the
    --heads in the place of the --mac-constraint.

    Raises:
        UserError: a word is none of these, or the rule has no such option.
    """
    first, *words = name.split("+")
    if first not in KINDS:
        raise UserError(f"--methods {name}: {first!r} is none of {', '.join(KINDS)}")
    kind = KINDS[first]
    known = {each.name for each in fields(kind.options)}
    chosen = {each: getattr(options, each) for each in known if hasattr(options, each)}
    if "heads" in words and kind.options is not sensitivity.HeadOptions:
        words.remove("heads")
    elif issubclass(kind.options, BudgetOptions):
        chosen["heads"] = ()
    if kind.importance:
        chosen["importance"] = kind.importance
    for word in words:
        option, _, number = word.partition("=")
        if option in NUMBERS and number.isdecimal():
            changed, value = option, int(number)
        else:
            changed, value = WORDS.get(word), VALUES.get(word, word)
        if changed not in known:
            allowed = [each for each, option in WORDS.items() if option in known]
            allowed += [f"{each}=N" for each in NUMBERS if each in known]
            raise UserError(f"--methods {name}: {word!r} is none of {', '.join(allowed)}")
        chosen[changed] = value
    made = kind.options(**chosen)
    return Method(name, replace(kind.rule(made), name=name), made)


def make(method: Method, base: Base, directory: Path) -> list[FirstStage]:
    """Compress the base tower by one method at all its constraints, and keep the results."""
    stages = []
    for constraint in method.rule.constraints:
        smaller = make_smaller(base, method.rule, constraint, method.options)
        label, record = constraint.label, smaller.compression
        if record.notes:
            tqdm.write(
                f"note: {method.name}, {label}: {record.repair} had no tame solution in "
                f"{len(record.notes)} of {len(smaller.repairs)} sublayers, which stay as cut; "
                "compression.json names them"
            )
        place = directory / f"{method.name}-{label.replace(' ', '-').lower()}"
        place.mkdir(parents=True)
        write(smaller, base, place)
        stages.append(FirstStage(method.name, label, constraint.value, place, record.seconds))
    return stages


def made_before(path: Path) -> FirstStage:
    """A first stage that lies in a directory; its record says how it was made.

    Raises:
        UserError: there is no such directory.
    """
    if not path.is_dir():
        raise UserError(f"--stage {path}: no such directory")
    record = path / "compression.json"
    if not record.is_file():
        return FirstStage(path.name, "", None, path, None)
    entries = json.loads(record.read_text())
    return FirstStage(
        entries["rule"], entries["constraint"], entries["mac_fraction"], path, entries["seconds"]
    )


def seen(stage: FirstStage) -> set[str]:
    """Keys of the images that a first stage was calibrated on, as far as it says."""
    keys = stage.directory / CALIBRATION_KEYS
    return set(keys.read_text().splitlines()) if keys.is_file() else set()


def refuse_overlap(calibration: set[str], evaluation: set[str]) -> None:
    """Raise `UserError` if an image was calibrated on and is to be evaluated on."""
    if both := sorted(calibration & evaluation):
        raise UserError(
            f"{len(both):,} images are in both the calibration and the evaluation data, such as "
            f"{both[0]}: choose another --split or --calibration-split"
        )
