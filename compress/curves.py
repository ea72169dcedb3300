"""Curves: what a sublayer's pruning, compensated, does to the tower's final embedding.

Stands between importance and allocation. Going up the layers, the dense residual stream of the
calibration images is at hand, so a point of a curve costs only the layers above its sublayer.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity
from tqdm import tqdm

from compress.allocate import Curve, best_units
from compress.calibration import Calibration
from compress.importance import Importance
from compress.repair import Moments, output_weight, solve_damped
from pruning_mechanism import Sublayer, embed, project, sublayers

DAMPING = 1e-4
POINTS = (0.0, 0.03, 0.06, 0.12, 0.2, 0.3, 0.42, 0.56, 0.75)
"""Shares of the units at which a curve is measured, denser where it bends; all units lose 0."""


@torch.no_grad()
def measure_curves(
    model: nn.Module,
    importance: Importance,
    moments: Sequence[Moments],
    calibration: Calibration,
    progress: str | None = None,
) -> list[Curve]:
    """A curve for every sublayer of `model`, in the order in which they run.

    Args:
        model: the dense tower.
        importance: which units of a sublayer go first.
        moments: of the dense sublayers, from `compress.recover.dense_moments`.
        calibration: images; their residual streams are held in memory, 4 bytes a token and hidden
            dimension.
        progress: the title of a bar.
    """
    parts = sublayers(model)
    streams = [embed(model, batch.pixels) for batch in calibration.batches()]
    dense = [project(model, _run(parts, stream)) for stream in streams]
    curves = []
    for index, part in enumerate(tqdm(parts, desc=progress, disable=progress is None)):
        scores = getattr(importance, part.kind)[part.layer]
        features = [part.features(stream) for stream in streams]
        losses, sizes = [], _points(part.units)
        for size in sizes[:-1]:
            kept = best_units(scores[None], [size])[0].repeat_interleave(part.unit_width)
            weight = compensated(moments[index], part, kept).to(streams[0])
            distances = [
                1 - cosine_similarity(project(model, _run(parts[index + 1 :], after)), own)
                for after, own in zip(_after(streams, features, kept, weight), dense, strict=True)
            ]
            losses.append(torch.cat(distances).mean().item())
        curves.append(Curve(part.layer, part.kind, tuple(sizes), (*losses, 0.0)))
        streams = [
            stream + part.output(each) for stream, each in zip(streams, features, strict=True)
        ]
    return curves


def compensated(moments: Moments, sublayer: Sublayer, kept: Tensor) -> Tensor:
    """W̃ [kept inputs + 1, d]: the kept inputs' weights and the bias, solved for the whole output.

    Args:
        moments: of the dense sublayer.
        sublayer: the dense sublayer.
        kept: bool[p], the inputs of the output projection that stay.
    """
    weight = output_weight(sublayer)
    rows = torch.cat([kept, kept.new_ones(1)])
    target = moments.xx[rows] @ weight
    return solve_damped(moments.xx[rows][:, rows], target, weight[rows], DAMPING)


def _run(parts: Sequence[Sublayer], hidden: Tensor) -> Tensor:
    for part in parts:
        hidden = part(hidden)
    return hidden


def _after(streams: list[Tensor], features: list[Tensor], kept: Tensor, weight: Tensor):
    """The residual streams after a sublayer that keeps only some inputs."""
    for stream, each in zip(streams, features, strict=True):
        yield stream + each[..., kept] @ weight[:-1] + weight[-1]


def _points(units: int) -> list[int]:
    """The sizes at which a curve is measured."""
    return np.unique([*np.round(np.array(POINTS) * units).astype(int), units]).tolist()
