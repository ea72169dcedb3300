"""From data sets and stages to what the report says of them.

Each stage embeds the images of a data set once, whatever number of tasks they have.
"""

import csv
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from datasets import Dataset
from torch import Tensor

from compress.errors import UserError
from evaluation.classifying.accuracy import (
    Answers,
    Space,
    answers,
    classes_handed_on,
    confusion,
    mean_per_class,
    per_class,
    reranked,
)
from evaluation.classifying.stages import Classifiers, Classifying
from evaluation.classifying.tasks import Task, TaskSet, distinct
from evaluation.experiment.first_stages import refuse_overlap
from evaluation.experiment.search import file_contents
from evaluation.measuring.bootstrap import Bootstrap
from evaluation.measuring.clock import encoding, stage_timings
from evaluation.reports.zero_shot.report import Accuracy, Confused, StageCost, TaskResult
from evaluation.retrieval import hits
from pruning_mechanism import macs, parameters

KS = (1, 3, 5, 10, 20)
_MOST_CONFUSED = 10


def task_results(
    data: TaskSet,
    full: Classifying,
    stages: Sequence[Classifying],
    m: int,
    seed: int,
    matrices: Path,
) -> list[TaskResult]:
    """What the full tower and the stages make of each task of a data set.

    Args:
        data: readable images and tasks.
        full: the full tower.
        stages: the others.
        m: classes that a stage hands on, or half of the task's where there are no more.
        seed: of the bootstrap.
        matrices: directory that confusion matrices are written into, as CSV.
    """
    everyone = (full, *stages)
    embedded = [classifying.embedded(data.images, data.name) for classifying in everyone]
    made = Classifiers()
    results = []
    for task in data.tasks:
        spaces = [
            Space(images[task.rows], made.of(classifying, task))
            for classifying, images in zip(everyone, embedded, strict=True)
        ]
        judges = [_Judge(task, space, seed) for space in spaces]
        handed_on = classes_handed_on(m, len(task.classes))
        of_full, *others = [
            judge.accuracy(classifying.name, judges[0], handed_on)
            for judge, classifying in zip(judges, everyone, strict=True)
        ]
        names = [classifying.name for classifying in everyone]
        write_matrices(matrices / slug(task.name), task, names, judges)
        results.append(
            TaskResult(
                name=task.name,
                data_set=data.name,
                split=data.split,
                classes=tuple(names[0] for names in task.classes),
                images=tuple(task.images_of_each()),
                templates=task.templates,
                m=handed_on,
                skipped=data.skipped,
                notes=data.notes,
                full=of_full,
                stages=tuple(others),
            )
        )
    return results


class _Judge:
    """What one stage makes of one task."""

    def __init__(self, task: Task, space: Space, seed: int):
        self.task = task
        self.space = space
        self.answers: Answers = answers(space, task.labels)
        self.matrix = confusion(self.answers.predicted, task.labels, len(task.classes))
        self._bootstrap = Bootstrap(torch.arange(len(task.labels)), seed=seed)

    def accuracy(self, name: str, full: "_Judge", m: int) -> Accuracy:
        """The stage's accuracy, alone and in front of the full tower."""
        ks = [k for k in KS if k < len(self.task.classes)]
        right = hits(self.answers.ranks, ks)
        shares = per_class(self.matrix).tolist()
        cascade = difference = None
        if self is not full:
            behind = reranked(self.space, full.space, self.task.labels, m)
            cascade = self._bootstrap.interval(behind)
            difference = self._bootstrap.difference(behind, full.answers.ranks == 0)
        return Accuracy(
            stage=name,
            top={k: self._bootstrap.interval(hit) for k, hit in zip(ks, right.T, strict=True)},
            mean_per_class=mean_per_class(self.matrix),
            per_class=tuple(None if share != share else share for share in shares),
            confused=tuple(_most_confused(self.matrix, self.task)),
            cascade=cascade,
            difference=difference,
        )


def costs(
    everyone: Sequence[Classifying], data: TaskSet, batch_size: int, repetitions: int, device: str
) -> list[StageCost]:
    """What each stage costs, all of them timed in turn on one batch of a data set's files."""
    sources = file_contents(data.images, batch_size)
    contenders = {each.name: encoding(each.stage) for each in everyone}
    clock = stage_timings(contenders, sources, repetitions, device)
    return [
        StageCost(
            name=each.name,
            tower_macs=macs(each.stage.model).tower,
            parameters=parameters(each.stage.model),
            encoder_seconds=clock[each.name].encoder,
            end_to_end_seconds=clock[each.name].end_to_end,
        )
        for each in everyone
    ]


def refuse_seen(everyone: Sequence[Classifying], images: Dataset, name: str) -> None:
    """Raise `UserError` if a stage was calibrated on images of the data set of that name."""
    keys = set(images["key"])
    for classifying in everyone:
        try:
            refuse_overlap(set(classifying.seen), keys)
        except UserError as error:
            raise UserError(f"{classifying.name} on {name}: {error}") from error


def write_matrices(
    directory: Path, task: Task, names: Sequence[str], judges: Sequence[_Judge]
) -> None:
    """Write the confusion matrix of each stage: a row for each class, with its name in front."""
    directory.mkdir(parents=True, exist_ok=True)
    first = [names[0] for names in task.classes]
    for file, judge in zip(distinct(list(map(slug, names))), judges, strict=True):
        with (directory / f"{file}.csv").open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["class", *first])
            writer.writerows(
                [name, *row] for name, row in zip(first, judge.matrix.tolist(), strict=True)
            )


def slug(name: str) -> str:
    """A name as a part of a path."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "unnamed"


def _most_confused(matrix: Tensor, task: Task) -> list[Confused]:
    """The pairs of classes that most images were confused between, most first."""
    wrong = matrix.clone().fill_diagonal_(0)
    most = wrong.flatten().topk(min(_MOST_CONFUSED, wrong.numel()))
    classes = len(task.classes)
    pairs = zip(most.values.tolist(), most.indices.tolist(), strict=True)
    return [
        Confused(task.classes[place // classes][0], task.classes[place % classes][0], images)
        for images, place in pairs
        if images
    ]
