"""Curves: what a sublayer's size, its output compensated, does to the tower's final embedding.

Stands between importance and allocation. Going up the layers, the residual streams of the
calibration images are at hand, so a point of a curve costs only the layers above its sublayer.
"""

from collections.abc import Collection, Sequence
from math import isfinite

import numpy as np
import torch
from scipy.linalg import LinAlgError
from torch import Tensor
from torch.nn.functional import cosine_similarity
from tqdm import tqdm

from compress.allocation.allocate import Curve, best_units
from compress.budgets.structures import allowed
from compress.calibrating.calibration import Calibration
from compress.calibrating.finite import first_break
from compress.calibrating.importance import Importance
from compress.calibrating.moments import Moments, output_weight, precise
from compress.calibrating.streams import Stream
from compress.choices import USUAL_STRUCTURES, Structure
from compress.errors import not_finite, place_of
from compress.solving.damping import solve_units
from pruning_mechanism import Sublayer, Tower

DAMPING = 1e-4
"""λ of compensation, in standardised units."""
POINTS = (0.0, 0.03, 0.06, 0.12, 0.2, 0.3, 0.42, 0.56, 0.75)
"""Shares of the units at which a curve is measured, denser where it bends; all units lose 0."""


@torch.no_grad()
def measure_curves(
    tower: Tower,
    importance: Importance,
    moments: Sequence[Moments],
    calibration: Calibration,
    progress: str | None = None,
    structures: Collection[Structure] = USUAL_STRUCTURES,
) -> list[Curve]:
    """A curve for every sublayer of the dense `tower`, in the order in which they run.

    Args:
        tower: the dense one.
        importance: which units of a sublayer go first.
        moments: of the dense sublayers, from `compress.calibrating.moments.dense_moments`.
        calibration: images or texts; their residual streams are held in memory, 4 bytes a token
            and hidden dimension.
        progress: the title of a bar.
        structures: what may go; a curve has points at the sizes that this allows.

    Raises:
        UserError: activations are not finite.
    """
    sweep = Sweep(tower, calibration)
    curves = []
    for index, part in enumerate(tqdm(sweep.parts, desc=progress, disable=progress is None)):
        points = [*np.round(np.array(POINTS) * part.units).astype(int), part.units]
        sizes = allowed(structures, part.kind, part.units, np.array(points))
        features = [part.features(stream.hidden) for stream in sweep.streams]
        scores = getattr(importance, part.kind)[part.layer]
        losses = [
            sweep.loss(index, features, *_compensation(moments[index], part, scores, size))
            for size in sizes[:-1]
        ]
        curves.append(Curve(part.layer, part.kind, part.units, tuple(sizes.tolist()), (*losses, 0)))
        sweep.climb(index)
    return curves


class Sweep:
    """Goes up a tower; knows what the final embedding loses if one sublayer changes.

    `streams` are the residual streams of the calibration images, batch by batch, as they enter the
    sublayer that is next; they are held in memory.
    """

    def __init__(self, tower: Tower, calibration: Calibration):
        """Start below the first sublayer."""
        self.tower, self.parts = tower, tower.sublayers
        self.streams = [Stream.start(tower, batch) for batch in calibration.batches()]
        self._embeddings = [self._embedding(stream) for stream in self.streams]

    def _embedding(self, stream: Stream) -> Tensor:
        embedded = self.tower.project(_run(self.parts, stream.hidden), stream.inputs)
        if not embedded.isfinite().all():
            raise not_finite(first_break(self.tower, stream.hidden))
        return embedded

    def loss(self, index: int, features: list[Tensor], kept: Tensor, weight: Tensor) -> float:
        """Mean 1 - cos to the tower's embedding if sublayer `index` keeps and weighs inputs so.

        `features` are what its output projection gets, batch by batch.
        """
        weight = weight.to(features[0])
        distances = []
        for stream, seen, own in zip(self.streams, features, self._embeddings, strict=True):
            after = stream.hidden + seen[..., kept] @ weight[:-1] + weight[-1]
            embedded = self.tower.project(_run(self.parts[index + 1 :], after), stream.inputs)
            distances.append(1 - cosine_similarity(precise(embedded), precise(own)))
        found = torch.cat(distances).mean().item()
        if not isfinite(found):
            raise not_finite(place_of(self.parts[index].layer, self.parts[index].kind))
        return found

    def climb(self, index: int) -> None:
        """Take all streams past sublayer `index`."""
        for stream in self.streams:
            stream.hidden = self.parts[index](stream.hidden)


def _compensation(
    moments: Moments, part: Sublayer, scores: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """Which inputs stay if the best `size` units do, bool[p], and their weight."""
    kept = best_units(scores[None], [int(size)])[0].repeat_interleave(part.unit_width)
    return kept, compensated(moments, part, kept)


def compensated(moments: Moments, sublayer: Sublayer, kept: Tensor) -> Tensor:
    """W̃ [kept inputs + 1, d]: the kept inputs' weights and the bias, solved for the target.

    Args:
        moments: of all inputs of the dense sublayer, and of the target.
        sublayer: the dense sublayer.
        kept: bool[p], the inputs of the output projection that stay: of each unit all, none, or
            in heads whose values shrink as many as of any other.

    Raises:
        LinAlgError: something is not finite.
    """
    width = max([1, *kept.view(-1, sublayer.unit_width).sum(1).tolist()])
    rows = torch.cat([kept, kept.new_ones(1)])
    left, prior = moments.of_inputs(kept), output_weight(sublayer)[rows]
    damping = DAMPING
    while True:
        try:
            return solve_units(left, prior, width, damping)
        except LinAlgError:  # rounding makes moments of very few different tokens negative
            if damping >= 1000:
                raise
            damping *= 10


def _run(parts: Sequence[Sublayer], hidden: Tensor) -> Tensor:
    for part in parts:
        hidden = part(hidden)
    return hidden
