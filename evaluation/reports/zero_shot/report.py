"""The report of zero-shot classification: what stages classify right, alone and in a cascade.

Data alone, as `evaluation.reports.report`: tables (`evaluation.reports.zero_shot.table`) and
`figures.topk` are made from it. Accuracies are in percent, times in seconds. No module that this
one imports needs torch.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from evaluation.measuring.values import Interval, Machine, Timing
from evaluation.reports import record
from evaluation.reports.record import RecordError

SCHEMA = 1
FILE = "report.json"


@dataclass(frozen=True)
class Confused:
    """Images of one class that were taken for another, by the classes' first names."""

    label: str
    predicted: str
    images: int


@dataclass(frozen=True)
class Accuracy:
    """How well one stage classifies the images of one task.

    Attributes:
        stage: its name, as in `ZeroShot.stages`.
        top: top-k accuracy by k, for each k below the number of classes.
        mean_per_class: mean of the classes' top-1 accuracies.
        per_class: top-1 accuracy of each class, None where it has no images.
        confused: the classes that were taken for others most often.
        cascade: top-1 accuracy where the full tower re-ranks the stage's m best classes of each
            image; None for the full tower.
        difference: of that minus the full tower's top-1, in percentage points (paired).
    """

    stage: str
    top: dict[int, Interval]
    mean_per_class: float
    per_class: tuple[float | None, ...]
    confused: tuple[Confused, ...]
    cascade: Interval | None = None
    difference: Interval | None = None


@dataclass(frozen=True)
class TaskResult:
    """What all stages make of one task.

    Attributes:
        name: of the task.
        data_set: that its images are of.
        split: of the data set.
        classes: the first name of each class.
        images: of each class.
        templates: that names were put into.
        m: classes that a stage hands to the full tower.
        skipped: keys of the images that couldn't be read.
        notes: what a reader of the numbers should know.
        full: the full tower.
        stages: the others, in the order of `ZeroShot.stages`.
    """

    name: str
    data_set: str
    split: str
    classes: tuple[str, ...]
    images: tuple[int, ...]
    templates: tuple[str, ...]
    m: int
    skipped: tuple[str, ...]
    notes: tuple[str, ...]
    full: Accuracy
    stages: tuple[Accuracy, ...]

    def __post_init__(self) -> None:
        """Refuse accuracies that aren't of these classes."""
        for accuracy in (self.full, *self.stages):
            if not len(self.classes) == len(self.images) == len(accuracy.per_class):
                raise RecordError(
                    f"{self.name}: {len(self.classes)} classes, but {accuracy.stage} has the "
                    f"accuracies of {len(accuracy.per_class)}"
                )
            if 1 not in accuracy.top:
                raise RecordError(f"{self.name}: {accuracy.stage} has no top-1 accuracy")

    @property
    def chance(self) -> float:
        """Top-1 accuracy of guessing, in percent."""
        return 100 / len(self.classes)


@dataclass(frozen=True)
class StageCost:
    """What a stage costs.

    Attributes:
        name: of its directory, or on the hub.
        tower_macs: MACs of the vision tower for one image.
        parameters: of the vision tower.
        encoder_seconds: seconds per image, pixels → embedding.
        end_to_end_seconds: seconds per image, bytes → embedding.
    """

    name: str
    tower_macs: int
    parameters: int
    encoder_seconds: Timing
    end_to_end_seconds: Timing


@dataclass(frozen=True)
class ZeroShot(record.Saved):
    """One run on one or more data sets.

    Attributes:
        command: the command line that made it.
        stages: the full tower first, then the others.
        tasks: at least one.
        seed: for drawing images and for the bootstrap intervals.
        machine: where it was measured.
        versions: of Python and packages.
        date: ISO 8601.
        schema: version of this form.
    """

    command: str
    stages: tuple[StageCost, ...]
    tasks: tuple[TaskResult, ...]
    seed: int
    machine: Machine
    versions: dict[str, str]
    date: str
    schema: int = SCHEMA

    called: ClassVar = "zero-shot report"
    version: ClassVar = SCHEMA

    def __post_init__(self) -> None:
        """Refuse tasks of other stages, or none."""
        names = tuple(stage.name for stage in self.stages)
        if not self.tasks:
            raise RecordError("a report of zero-shot classification needs a task")
        for task in self.tasks:
            found = tuple(accuracy.stage for accuracy in (task.full, *task.stages))
            if found != names:
                raise RecordError(f"{task.name} has the stages {found}, the report {names}")

    @property
    def full_tower(self) -> str:
        """The name of the full tower."""
        return self.stages[0].name


def open_zero_shot(path: Path) -> ZeroShot:
    """Read a report that a user named.

    Raises:
        RecordError: it isn't one, or can't be read.
    """
    return record.opened(ZeroShot.load, path, "evaluation.zero_shot")
