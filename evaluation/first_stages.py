"""The first stages of an experiment: compressed here by the rules asked for, or made before.

Stands between the rules and the cascade. A rule scores the tower once, and all its constraints
share the scores.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from compress import fisher, recover, sensitivity
from compress.command import UserError
from compress.rule import CALIBRATION_KEYS, Base, BaseOptions, compress, write
from pruning_mechanism import Mask


@dataclass(frozen=True)
class FirstStage:
    """A first stage on disk, and what it was asked for."""

    method: str
    constraint: str
    constraint_value: float | None
    directory: Path
    seconds: float | None


@dataclass(frozen=True)
class Method:
    """A rule with its constraints: `masks` scores the tower and gives a mask for each of them.

    `check` raises `UserError` if a tower of some configuration can't meet the constraints.
    """

    name: str
    constraints: dict[str, float]
    check: Callable[[object], None]
    masks: Callable[[Base], Iterator[Mask]]


def _mac_labels(constraints: tuple[float, ...]) -> dict[str, float]:
    return {f"MAC {each:g}": each for each in constraints}


def _mac_check(constraints: tuple[float, ...]) -> Callable[[object], None]:
    def check(_config) -> None:
        for constraint in constraints:
            fisher.check_mac_constraint(constraint)

    return check


def fisher_method(constraints: tuple[float, ...]) -> Method:
    """Fisher pruning at these MAC constraints."""

    def masks(base: Base) -> Iterator[Mask]:
        importance = fisher.scores(base.model, base.calibration, texts=base.texts, progress=True)
        for constraint in constraints:
            yield fisher.select(importance, constraint, base.model.config)

    return Method("fisher", _mac_labels(constraints), _mac_check(constraints), masks)


def sensitivity_method(heads: tuple[int, ...]) -> Method:
    """Head pruning by sensitivity, this many heads gone."""

    def check(config) -> None:
        for count in heads:
            sensitivity.check_heads(count, config)

    def masks(base: Base) -> Iterator[Mask]:
        importance = sensitivity.scores(
            base.model, base.calibration, texts=base.texts, progress=True
        )
        for count in heads:
            yield sensitivity.select(importance, count, base.model.config)

    return Method("sensitivity", {f"{each} heads": float(each) for each in heads}, check, masks)


def recover_method(constraints: tuple[float, ...]) -> Method:
    """Recoverable pruning, allocated by measured curves, at these MAC constraints."""

    def masks(base: Base) -> Iterator[Mask]:
        importance, curves = recover.ordered(
            base.model, base.calibration, "curves", recover.RecoverOptions.curve_samples
        )
        for constraint in constraints:
            yield recover.select(importance, constraint, base.model.config, "curves", curves)

    return Method("recover", _mac_labels(constraints), _mac_check(constraints), masks)


def make(method: Method, base: Base, options: BaseOptions, directory: Path) -> list[FirstStage]:
    """Compress the base tower by one method at all its constraints, and keep the results."""
    stages = []
    start = time.perf_counter()
    masks = method.masks(base)
    for label, value in method.constraints.items():
        mask = next(masks)
        if not stages:  # the scoring is shared; each constraint is charged with all of it
            scoring = time.perf_counter() - start
        smaller = compress(base, mask, method.name, label, options, seconds=scoring)
        if wild := len(smaller.compression.notes):
            tqdm.write(
                f"note: {method.name}, {label}: {options.repair} had no tame solution in {wild} of "
                f"{len(smaller.repairs)} sublayers, which stay as cut; compression.json names them"
            )
        place = directory / f"{method.name}-{label.replace(' ', '-').lower()}"
        place.mkdir(parents=True)
        write(smaller, base, place)
        stages.append(FirstStage(method.name, label, value, place, smaller.compression.seconds))
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
