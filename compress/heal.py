"""Healing: a first stage learns what closed form leaves alone, from the full tower's embeddings.

Pruning rebuilds output projections by least squares, alignment the embedding's; queries, keys,
values and fc1 stay as they were. Here all of them are trained for a few hundred steps, on images
alone, and the projection is solved for once more. What pruning left is inherited, as in TinyCLIP
(arXiv 2309.12314).

    python -m compress.heal --model results/joint-mac-0.07
"""

from dataclasses import dataclass

from commands.run import main_of
from compress.command import run_command
from compress.options import OutputOptions
from compress.training.options import TrainingOptions
from compress.training.recipe import Recipe


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
from compress.training.training import LEAST_IMAGES, check_batch, taught


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
            obsolete=(lesson.state,),
        )

    asked = {Setting("steps", options.steps): options.recipe}
    return Rule("heal", asked, step, check, Needs(layers=False, full=True, images=LEAST_IMAGES))


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
