"""Trains a tower of a source: from calibration images to weights, whatever the student is.

Stands between the source and the Trainer: who is the teacher, which images are left out, where an
unfinished training lies.
"""

import shutil
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from compress.making.source import Source
from compress.training.engine import Trained, train
from compress.training.processes import first_alone, is_first
from compress.training.recipe import Recipe
from compress.training.teacher import digest, full_embeddings, identified, prepared_by
from compress.training.views import Views
from pruning_mechanism import Tower
from pruning_mechanism.checkpoints.checkpoint import fingerprint

LEAST_IMAGES = 88
"""Images that are trained on and held out at least: a quarter is held out, and each of these finds
ten of the others, which are twice as many."""


def trained(
    source: Source, tower: Tower, recipe: Recipe, state: Path
) -> tuple[Tensor, tuple[str, ...]]:
    """Train a tower on a source's calibration images, in place.

    Args:
        source: its images, and the full tower whose embeddings are to be met.
        tower: what to train.
        recipe: how.
        state: where unfinished trainings are kept, each in a directory of its own.

    Returns:
        the full tower's embeddings of all calibration images, float32 [n, e], and what there is to
        say of the training.
    """
    images = source.calibration
    content = digest(images)
    with first_alone(images.device):
        embeddings = full_embeddings(source, 2 if recipe.flips else 1, content)
    learnt, held_out = _parted(len(images), recipe.held_out)
    own = state / identified(
        model=fingerprint(source.path, source.model),
        prepared=prepared_by(source.processor),
        full=fingerprint(source.full.path, source.full.tower.model),
        images=content,
        recipe=asdict(recipe),
    )
    found = train(
        tower,
        Views(images, embeddings, learnt),
        Views(images, embeddings[:, :1], held_out),
        recipe,
        own,
    )
    if is_first():
        shutil.rmtree(own, ignore_errors=True)
    return embeddings[:, 0], _said(found, len(learnt), len(held_out))


def _parted(images: int, held_out: int) -> tuple[range, range]:
    """Which images are trained on, and which are left out: the last, a quarter at most."""
    left = images - min(held_out, images // 4)
    return range(left), range(left, images)


def _said(found: Trained, learnt: int, held_out: int) -> tuple[str, ...]:
    went = f"{found.before:.1f} before, {found.after:.1f} after {found.best} of {found.steps} steps"
    return (
        f"trained on {learnt} images; agreement@10 with the full tower among {held_out} others: "
        f"{went}",
    )
