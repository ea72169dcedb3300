"""Early exits of one tower: what each loses by itself, and what pruning it would lose.

Stands between curves and `compress.joint`, which chooses among them. An exit's embedding is read
off by alignment, so what a sublayer is worth depends on which layer the tower ends after: each exit
has token weights, recoverable scores and curves of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from compress.allocation.plan import Scored, Start, starting_curves
from compress.calibrating.cache import Cache
from compress.calibrating.calibration import Calibration
from compress.calibrating.subject import Subject
from compress.choices import AlignTokens, Spending
from compress.solving.alignment import align_features, pooled_after
from compress.solving.eliminate import importance_of
from pruning_mechanism import Reduction, Tower, pooled_only, reduce
from pruning_mechanism.ridge import STRENGTHS, deviations, ridge

Merged = tuple[int, ...]
"""How many tokens merge in each layer of the whole tower."""


@dataclass(frozen=True)
class ReadOff:
    """What can be read off a tower that merges tokens, after each of its layers.

    By the layer that the tower would end after, from 1: `losses` are mean 1 - cos between the full
    tower's embedding and the alignment's of each image, left out of the regression; `pooled` what
    that reads, float32 [n, r] each, where it is kept.
    """

    schedule: Merged
    losses: Mapping[int, float]
    pooled: Mapping[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class ExitTower:
    """A tower that ends after some layer, aligned and not yet pruned, its units scored."""

    subject: Subject
    scored: Scored

    def start(self, spending: Spending) -> Start:
        """The curves that pruning it goes by, measured once for all budgets."""
        return starting_curves(self.subject, self.scored, spending)


def linear_loss(pooled: Tensor, targets: Tensor) -> float:
    """Leave-one-out 1 - cos of a linear alignment, no random features and no prior."""
    pooled = pooled.double()
    standard = (pooled - pooled.mean(0)) / deviations(pooled)
    return ridge(standard, targets, strengths=STRENGTHS[::2]).left_out_loss


@torch.no_grad()
def read_off(
    model: PreTrainedModel,
    exits: Sequence[int],
    schedules: Sequence[Merged],
    images: Calibration,
    embeddings: Tensor,
    tokens: AlignTokens | None = None,
) -> list[ReadOff]:
    """What each exit of a tower loses by itself under each schedule of merging.

    The tower goes over the images once for each schedule, and is read off after several layers;
    an image is decoded once.

    Args:
        model: the tower, neither pruned nor reduced.
        exits: numbers of layers, from 1.
        schedules: the first of them merges nothing; what is pooled under it is kept.
        images: to be read off.
        embeddings: the full tower's of these, [n, e].
        tokens: that are read, as `pooled_only` takes them.
    """
    towers = [
        Tower.of(pooled_only(reduce(model, Reduction(merged_per_layer=merged), share=True), tokens))
        for merged in schedules
    ]
    found: list[dict[int, list[Tensor]]] = [{layers: [] for layers in exits} for _ in towers]
    for batch in images.batches("exits"):
        entering = towers[0].embed(batch.pixels)
        for tower, rows in zip(towers, found, strict=True):
            for layers, pooled in pooled_after(tower, entering, exits).items():
                rows[layers].append(pooled)
    results = []
    for schedule, rows in zip(tqdm(schedules, desc="read off"), found, strict=True):
        whole = {layers: torch.cat(batches) for layers, batches in rows.items()}
        losses = {layers: linear_loss(features, embeddings) for layers, features in whole.items()}
        results.append(ReadOff(schedule, losses, {} if any(schedule) else whole))
    return results


def exit_tower(
    model: PreTrainedModel,
    layers: int,
    pooled: Tensor,
    embeddings: Tensor,
    images: Calibration,
    cache: Cache,
) -> ExitTower:
    """The tower that ends after so many layers, its units scored.

    Args:
        model: the whole tower; if it is to keep all its layers, its projection stays.
        layers: how many stay.
        pooled: what is read off it after the last of them, [n, r].
        embeddings: the full tower's of the same images, [n, e].
        images: to score on; the first of them are those of the curves.
        cache: holds what is found out about the tower.
    """
    base = model
    if layers < len(Tower.of(model).layers):
        base, _ = align_features(reduce(model, Reduction(layers=layers)), pooled, embeddings, 0)
    key = ("exit", layers, *pooled.shape, len(images))
    subject = Subject(Tower.of(base), images, cache=cache, key=key)
    importance = importance_of(subject.tower, subject.moments(), progress=True)
    return ExitTower(subject, Scored(importance, "recover"))
