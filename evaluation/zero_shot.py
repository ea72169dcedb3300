"""Zero-shot classification: how often the right class is among a stage's first k.

    python -m evaluation.zero_shot

The full tower's top-1 beside each stage's top-k says why a cascade works: what the full tower would
choose is among the few that a cheap stage ranks highest. Beside `evaluation.cascade`, which
measures the same of images that are searched; `figures.topk` draws the report.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from commands.flags import (
    Checkpoint,
    ConfigOption,
    Count,
    ReadPath,
    Reads,
    Seed,
    WrittenPath,
)
from commands.inputs import inputs_of
from commands.published import published_command
from commands.run import main_of
from commands.screen import console, printable
from commands.writing.outputs import finished_directory
from compress.choices import DEMO_FIRST_STAGE, DEMO_MODEL
from compress.command import run_command
from evaluation.options import places_of, refuse_named_classes


@dataclass(frozen=True)
class ZeroShotOptions(ConfigOption):
    """Classify images by the names of classes: top-k of each stage beside the full tower's.

    Example: python -m evaluation.zero_shot --datasets cifar10 folder:DIR --stages A B
    """

    stages: tuple[Checkpoint, ...] = (DEMO_FIRST_STAGE, DEMO_MODEL)
    """directories or hub names of checkpoints; the last one is the full tower"""
    full: Checkpoint | None = None
    """full tower, if it isn't the last of --stages"""
    datasets: tuple[str, ...] = ("scenes",)
    """scenes, cifar10, cifar100, imagenette, natural-images, caltech101, caltech256, imagenet1k,
    NAME:DIR for a local copy of one, folder:DIR, hub:OWNER/NAME"""
    split: str | None = None
    """train, validation or test (default: the one that accuracies are published on)"""
    images: Count | None = None
    """classify only N images of each data set, drawn by the seed"""
    classes: ReadPath | None = None
    """file of class names: one a line, or JSON; several names of a class mean the same"""
    templates: Annotated[str | None, Reads()] = None
    """file of templates, one a line or JSON, with {} or {c} for the name; or photo, cifar,
    imagenet, imagenet-simple, caltech101 (default: the data set's)"""
    m: Count = 20
    """classes that a stage hands to the full tower; half of them where there are no more"""
    batch_size: Count = 32
    """images or texts computed at once"""
    repetitions: Count = 5
    """times that each stage is timed, in turn with the others"""
    seed: Seed = 0
    """seed for drawing images and for the intervals"""
    device: str = "cpu"
    """where to compute: cpu, cuda, mps"""
    output: WrittenPath = Path("results/zero-shot")
    """directory to write report, table and confusion matrices into"""
    overwrite: bool = False
    """replace an earlier result"""

    def check(self) -> None:
        """Raise `UserError` if class names are given for several tasks."""
        super().check()
        refuse_named_classes(self.classes, self.datasets)


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("evaluation.zero_shot"), ZeroShotOptions, "evaluation.zero_shot")

import datetime

from compress.calibrating.device import check_device
from evaluation.classifying.data_sets import Wanted, open_data_sets
from evaluation.classifying.measure import costs, refuse_seen, task_results
from evaluation.classifying.stages import load_stages
from evaluation.measuring.machine import this_machine, versions
from evaluation.reports.record import write_text
from evaluation.reports.zero_shot import table as zero_shot_table
from evaluation.reports.zero_shot.report import FILE, ZeroShot


def main(options: ZeroShotOptions) -> None:
    """Classify, and write report.json, report.md and confusion matrices."""
    check_device(options.device)
    inputs = (*inputs_of(options), *places_of(options.datasets))
    with finished_directory(options.output, options.overwrite, inputs) as directory:
        report = _measured(options, directory / "confusion")
        report.save(directory / FILE)
        write_text(directory / "report.md", zero_shot_table.markdown(report))
    for table in zero_shot_table.terminal(report):
        console().print(table)
    for key in dict.fromkeys(key for task in report.tasks for key in task.skipped):
        console().print(f"skipped, because it can't be read: {printable(key)}")
    console().print(f"wrote {printable(options.output)}", soft_wrap=True)


def _measured(options: ZeroShotOptions, matrices: Path) -> ZeroShot:
    """Everything that the report holds; what can be wrong is found before images are encoded."""
    wanted = Wanted(options.split, options.images, options.seed, options.classes, options.templates)
    data_sets = open_data_sets(options.datasets, wanted)
    full, stages = load_stages(options.stages, options.full, options.device, options.batch_size)
    everyone = (full, *stages)
    for data in data_sets:
        refuse_seen(everyone, data.images, data.name)
    clock = costs(everyone, data_sets[0], options.batch_size, options.repetitions, options.device)
    tasks = [
        task
        for data in data_sets
        for task in task_results(data, full, stages, options.m, options.seed, matrices)
    ]
    return ZeroShot(
        command=published_command("evaluation.zero_shot", options),
        stages=tuple(clock),
        tasks=tuple(tasks),
        seed=options.seed,
        machine=this_machine(options.device, full.stage.dtype),
        versions=versions(),
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    )
