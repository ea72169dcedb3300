"""Healing: a first stage learns what closed form leaves alone, from the full tower's embeddings.

Pruning rebuilds output projections by least squares, alignment the embedding's; queries, keys,
values and fc1 stay as they were. Here all of them are trained for a few hundred steps, on images
alone, and the projection is solved for once more. What pruning left is inherited, as in TinyCLIP
(arXiv 2309.12314).

    python -m compress.heal --model results/joint-mac-0.07
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, ClassVar

from commands.flags import Bounds, Count, WrittenPath
from commands.run import main_of
from compress.command import run_command
from compress.errors import check_installed
from compress.options import OutputOptions, TokenOptions
from compress.training.recipe import Precision, Recipe


@dataclass(frozen=True)
class TrainingOptions(TokenOptions):
    """How a first stage is trained towards the full tower."""

    samples: Count = 8192
    """images to train on, and to hold out"""
    steps: Count = 400
    """steps of training, at most"""
    batch_size: Count = 64
    """images in a step, on all processes together, and computed at once elsewhere"""
    learning_rate: Annotated[float, Bounds(0, low_open=True)] = 0.05
    """peak learning rate, relative to the size of each weight matrix"""
    affinity: Annotated[float, Bounds(0)] = 0.0
    """weight of affinity mimicking (TinyCLIP): similarities within a batch, beside each cosine"""
    no_flips: bool = False
    """see no image mirrored; for images with writing in them"""
    held_out: Annotated[int, Bounds(22)] = 512
    """images that are left out, to tell when to stop; a quarter of the samples at most"""
    patience: Count = 10
    """stop after so many looks at them without a gain; there are ten in all"""
    precision: Precision = "float32"
    """of matrix products; weights are float32 either way"""
    state: WrittenPath = Path("results/training")
    """where unfinished training is kept; the same command goes on with it"""

    reads_target: ClassVar = True

    def check(self) -> None:
        """Raise `UserError` if transformers' Trainer lacks accelerate."""
        super().check()
        check_installed("accelerate", "train")

    @property
    def recipe(self) -> Recipe:
        """How it is trained."""
        same = {field.name for field in fields(Recipe)} & {field.name for field in fields(self)}
        given = {name: getattr(self, name) for name in same}
        return Recipe(flips=not self.no_flips, views=1 if self.no_flips else 2, **given)


@dataclass(frozen=True)
class HealOptions(TrainingOptions, OutputOptions):
    """Train a pruned, merged or shortened vision tower towards the full tower's embeddings.

    Example: python -m compress.heal --model results/joint-mac-0.07 --steps 400
    """


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("compress.heal"), HealOptions, "compress.heal")

import copy

from compress.budgets.settings import Setting
from compress.errors import UserError
from compress.making.rule import Rule, Step
from compress.making.source import Needs, Source
from compress.rule_command import run_rule
from compress.training.processes import processes
from compress.training.training import LEAST_IMAGES, taught


def rule(options: TrainingOptions) -> Rule:
    """Training towards the full tower, with a recipe."""

    def step(source: Source, recipe: Recipe) -> Step:
        model = copy.deepcopy(source.model)
        lesson = taught(source, model, recipe, options.finish, options.state)
        return Step(
            model,
            source.processor,
            pooled=lesson.pooled,
            embeddings=lesson.embeddings,
            settled=lesson.settled,
            notes=lesson.notes,
        )

    asked = {Setting("steps", options.steps): options.recipe}
    return Rule("heal", asked, step, check, Needs(layers=False, full=True, images=LEAST_IMAGES))


def check_batch(recipe: Recipe) -> None:
    """Raise `UserError` for a batch that can't be shared by the processes."""
    if recipe.batch_size % processes():
        raise UserError(
            f"--batch-size {recipe.batch_size} can't be shared equally by {processes()} processes"
        )


def check(source: Source, recipe: Recipe) -> None:
    """Raise `UserError` for a tower that has nothing to learn, or a batch that can't be shared."""
    check_batch(recipe)
    if source.full.tower.model is source.model:
        raise UserError(
            f"{source.path} is the full tower itself: name a result of another rule to heal"
        )


def main(options: HealOptions) -> None:
    """Train, align and save."""
    run_rule(rule(options), options)
