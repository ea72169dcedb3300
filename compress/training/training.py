"""Trains a model's vision tower: from calibration images to better weights, or those of before.

Stands between the source and the Trainer: who is the teacher, which images are left out, where an
unfinished training lies, and whether what came of it is kept.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from compress.choices import Finish
from compress.errors import UserError
from compress.making.source import Source
from compress.solving.alignment import align_features, pooled_features
from compress.training.engine import Trained, train
from compress.training.held_out import agreement
from compress.training.processes import processes
from compress.training.recipe import Recipe
from compress.training.teacher import (
    Teaching,
    by_full_tower,
    identified,
    prepared_by,
)
from compress.training.views import Views
from pruning_mechanism import tower_of
from pruning_mechanism.checkpoints.identity import weights_digest

LEAST_IMAGES = 88
"""Images that are trained on and held out at least: a quarter is held out, and each of these finds
ten of the others, which are twice as many."""


@dataclass(frozen=True)
class Lesson:
    """What came of a training, beside the weights.

    `embeddings` are the teacher's of all calibration images, float32 [n, e]; `pooled` is what the
    trained model reads off them, float32 [n, r], if that had to be known; `settled` says that the
    projection is better as it has learnt than solved for again; `notes` are for the reader of the
    record. `state` is where the training left its checkpoints: until the result is written, the
    same command takes it up there.
    """

    embeddings: Tensor
    pooled: Tensor | None
    settled: bool
    notes: tuple[str, ...]
    state: Path


def check_batch(recipe: Recipe) -> None:
    """Raise `UserError` for a batch that can't be shared by the processes."""
    if recipe.batch_size % processes():
        raise UserError(
            f"--batch-size {recipe.batch_size} can't be shared equally by {processes()} processes"
        )


def taught(
    source: Source,
    model: PreTrainedModel,
    recipe: Recipe,
    finish: Finish,
    state: Path,
    teaching: Teaching | None = None,
) -> Lesson:
    """Train a model's vision tower on a source's calibration images, in place.

    Where it isn't better on the images held out, with its projection solved for again if that is
    better still, it stays as it was.

    Args:
        source: its images, and the full tower whose embeddings are to be met.
        model: what to train, a copy of the source's.
        recipe: how.
        finish: what will be done to the model afterwards.
        state: where unfinished trainings are kept, each in a directory of its own.
        teaching: what is to be learnt; by default the full tower's embeddings.
    """
    images, tower = source.calibration, tower_of(model)
    teaching = teaching or by_full_tower(source, recipe)
    views, full = teaching.embeddings, teaching.embeddings[:, 0]
    learnt, held_out = parted(len(images), recipe.held_out)
    own = state / identified(
        model=weights_digest([source.model]),
        prepared=prepared_by(source.processor),
        **({} if images.reads == "full" else {"reads": images.reads}),
        recipe=asdict(recipe),
        **teaching.identity,
    )
    seen = Views(images, views, learnt, recipe.flips, teaching.captions)
    found = train(tower, seen, Views(images, views[:, :1], held_out), recipe, own)
    after, pooled, settled = found.after, None, False
    if finish.align == "ridge":
        pooled = pooled_features(model, images, "features")
        known = slice(learnt.start, learnt.stop)
        features, seed = finish.align_features, source.sampling.seed
        aligned, _ = align_features(model, pooled[known], full[known], features, seed)
        solved = _agreement(aligned, pooled, full, held_out)
        settled = solved < found.after
        after = max(found.after, solved)
    if after <= found.before:
        model.load_state_dict(source.model.state_dict())
        pooled, settled = None, False
    said = _said(found, after, (len(learnt), len(held_out)), teaching.teacher)
    return Lesson(full, pooled, settled, said, own)


def parted(images: int, held_out: int) -> tuple[range, range]:
    """Which images are trained on, and which are left out: the last, a quarter at most."""
    left = images - min(held_out, images // 4)
    return range(left), range(left, images)


@torch.no_grad()
def _agreement(aligned: PreTrainedModel, pooled: Tensor, full: Tensor, rows: range) -> float:
    """Agreement@10 of an aligned model on some images, from what it reads off them."""
    final = tower_of(aligned).final
    weights = next(final.parameters())
    own = final(pooled[rows.start : rows.stop].to(weights)).float().cpu()
    return agreement(own, full[rows.start : rows.stop])


def _said(found: Trained, after: float, images: tuple[int, int], teacher: str) -> tuple[str, ...]:
    learnt, held_out = images
    among = (
        f"trained on {learnt} images in {found.steps} steps; agreement@10 with {teacher} "
        f"among {held_out} others"
    )
    if after <= found.before:
        return (f"{among} was {found.before:.1f} and didn't rise ({after:.1f}): it is as it was",)
    return (f"{among}: {found.before:.1f} before, {after:.1f} after",)
