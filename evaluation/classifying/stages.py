"""The stages that classify: checkpoints as they are, each with the text tower that it names with.

A vision tower alone borrows the full tower's text tower, as first stages do; a whole CLIP of any
family has its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Dataset
from torch import Tensor

from cascade import Stage
from cascade.stages.stage import NoTextTowerError
from commands.published import published_name
from compress.errors import UserError
from compress.making.keys import read_keys
from evaluation.classifying.classifier import classifier
from evaluation.classifying.tasks import Task, distinct
from evaluation.experiment.first_stages import belongs_to
from evaluation.experiment.search import embeddings_of
from pruning_mechanism.checkpoints.checkpoint import fingerprint


@dataclass(frozen=True)
class Classifying:
    """A stage, under the name that reports give it.

    Attributes:
        name: of its directory, or on the hub.
        stage: with a text tower, its own or the full tower's.
        seen: keys of the images that it was calibrated on, as far as it says.
    """

    name: str
    stage: Stage
    seen: frozenset[str]

    def embedded(self, images: Dataset, title: str) -> Tensor:
        """Embeddings float32 [N, d] of images.

        Raises:
            UserError: one isn't finite.
        """
        found = embeddings_of(self.stage, images, f"{self.name}, {title}")
        if not torch.isfinite(found).all():
            raise UserError(
                f"{self.name} embeds an image to numbers that are not finite: is it damaged, or "
                "half precision too narrow for it?"
            )
        return found


class Classifiers:
    """The classifiers of tasks, made once for each text tower."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, str], Tensor] = {}

    def of(self, classifying: Classifying, task: Task) -> Tensor:
        """Float64 [C, d], in the space of a stage."""
        key = classifying.stage.text_name, task.name
        if key not in self._made:
            encode = classifying.stage.encode_texts
            self._made[key] = classifier(encode, task.classes, task.templates, task.name)
        return self._made[key]


def load_stages(
    paths: Sequence[str], full: str | None, device: str, batch_size: int
) -> tuple[Classifying, list[Classifying]]:
    """The full tower, and the other stages in the order given.

    Args:
        paths: directories or hub names, at least one.
        full: the full tower, by default the last of the paths.
        device: where they compute.
        batch_size: images or texts computed at once.

    Raises:
        UserError: the full tower has no text tower, or a vision tower alone was made from another.
        TowerError: a checkpoint can't be loaded, or lacks a tokenizer.
    """
    last = full or paths[-1]
    others = [path for path in dict.fromkeys(paths) if path != last]
    *names, own = distinct([published_name(path) for path in (*others, last)])
    tower = _opened(last, None, device, batch_size)
    made = [
        Classifying(name, _opened(path, (last, tower), device, batch_size), calibration_keys(path))
        for name, path in zip(names, others, strict=True)
    ]
    return Classifying(own, tower, calibration_keys(last)), made


def _opened(path: str, full: tuple[str, Stage] | None, device: str, batch_size: int) -> Stage:
    """A checkpoint as a stage; one without a text tower borrows the full tower's."""
    try:
        stage = Stage.load(path, device, batch_size)
    except NoTextTowerError as error:
        if full is None:
            raise UserError(
                f"{path} is a vision tower without a text tower, so it can't name classes: the "
                "full tower, the last of --stages or --full, must be a whole CLIP"
            ) from error
        return _borrowing(path, *full, device, batch_size)
    stage.encode_texts(["a"])  # a tokenizer that can't be used fails at once
    return stage


def _borrowing(path: str, place: str, tower: Stage, device: str, batch_size: int) -> Stage:
    """A vision tower alone with the text tower of the full tower that lies at `place`."""
    if belongs_to(Path(path), fingerprint(place, tower.model)) is False:
        raise UserError(
            f"{path} is a vision tower that was made from another checkpoint than the full tower "
            f"{place}, whose text tower it would borrow: name the one that it was made from"
        )
    return Stage.load(path, device, batch_size, tower)


def calibration_keys(path: str) -> frozenset[str]:
    """Keys of the images that a checkpoint was calibrated on, as far as it says."""
    return frozenset(read_keys(Path(path))) if Path(path).is_dir() else frozenset()
