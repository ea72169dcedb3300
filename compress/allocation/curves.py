"""Curves: what a sublayer's size, its output compensated, does to the tower's final embedding.

Stands between importance and allocation. Going up the layers, the residual streams of the
calibration images are at hand, so a point of a curve costs only the layers above its sublayer. The
first curves are those of the dense tower; later ones are measured around what was chosen, in the
repaired tower, where every other sublayer is as small as it is going to be.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from math import isfinite

import numpy as np
import torch
from scipy.linalg import LinAlgError
from torch import Tensor
from torch.nn.functional import cosine_similarity
from tqdm import tqdm

from compress.allocation.allocate import Curve, best_units
from compress.budgets.structures import USUAL, Structure, allowed
from compress.calibrating.calibration import Calibration
from compress.calibrating.importance import Importance
from compress.calibrating.streams import Streams
from compress.calibrating.token_weights import TokenWeights
from compress.errors import first_break, not_finite, place_of
from compress.solving.damping import solve_units
from compress.solving.moments import Moments, output_weight
from pruning_mechanism import Mask, Sublayer, Tower, prune

DAMPING = 1e-4
"""λ of compensation, in standardised units."""
POINTS = (0.0, 0.03, 0.06, 0.12, 0.2, 0.3, 0.42, 0.56, 0.75)
"""Shares of the units at which a curve is measured, denser where it bends; all units lose 0."""
WINDOW = (0.5, 0.7, 0.85, 1.0, 1.2, 1.45, 1.8)
"""Sizes of a later curve, as multiples of the size chosen."""
SHRINKING = (0.0, 0.25)
"""More of them, where the budget is about to fall."""


@torch.no_grad()
def measure_curves(
    tower: Tower,
    importance: Importance,
    moments: Sequence[Moments],
    calibration: Calibration,
    progress: str | None = None,
    structures: Collection[Structure] = USUAL,
) -> list[Curve]:
    """A curve for every sublayer of the dense `tower`, in the order in which they run.

    Args:
        tower: the dense one.
        importance: which units of a sublayer go first.
        moments: of the dense sublayers, from `compress.recover.dense_moments`.
        calibration: images or texts; their residual streams are held in memory, 4 bytes a token
            and hidden dimension.
        progress: the title of a bar.
        structures: what may go; a curve has points at the sizes that this allows.

    Raises:
        UserError: activations are not finite.
    """
    sweep = Sweep(tower, tower, calibration)
    curves = []
    for index, part in enumerate(tqdm(sweep.parts, desc=progress, disable=progress is None)):
        points = [*np.round(np.array(POINTS) * part.units).astype(int), part.units]
        sizes = allowed(structures, part.kind, part.units, np.array(points))
        features = [part.features(each.current) for each in sweep.streams]
        scores = getattr(importance, part.kind)[part.layer]
        losses = [
            sweep.loss(index, features, *_compensation(moments[index], part, scores, size))
            for size in sizes[:-1]
        ]
        curves.append(Curve(part.layer, part.kind, part.units, tuple(sizes.tolist()), (*losses, 0)))
        sweep.climb(index)
    return curves


@torch.no_grad()
def remeasure_curves(
    dense: Tower,
    smaller: Tower,
    mask: Mask,
    importance: Importance,
    calibration: Calibration,
    curve_samples: int,
    multiple: int = 1,
    weights: Sequence[TokenWeights] | None = None,
    shrinking: bool = False,
    progress: str | None = None,
    structures: Collection[Structure] = USUAL,
) -> list[Curve]:
    """Curves around the sizes of `smaller`, every other sublayer staying as it is there.

    The loss at a size is that of the whole tower. A sublayer that grows has its dense units back;
    the dimensions of its heads stay as in the mask.

    Args:
        dense: the dense tower, in the coordinates of the mask.
        smaller: the tower pruned to `mask` and repaired.
        mask: what `smaller` keeps.
        importance: which units of a sublayer go first.
        calibration: images that compensation is solved on; their streams are held in memory.
        curve_samples: how many of them, the first, losses are measured on.
        multiple: neurons are measured at multiples of it.
        weights: of the tokens after each sublayer.
        shrinking: whether the budget falls next, so that every smaller size must be within reach.
        progress: the title of a bar.
        structures: what may go.

    Raises:
        UserError: activations are not finite.
    """
    sweep = Sweep(dense, smaller, calibration, curve_samples)
    of_tokens = weights or [TokenWeights()] * len(sweep.parts)
    curves = []
    parts = _with_all_units(dense, mask).sublayers
    for index, part in enumerate(tqdm(parts, desc=progress, disable=progress is None)):
        features = []
        moments = Moments(part.output.in_features, part.output.out_features)
        for each in sweep.streams:
            seen = part.features(each.current)
            target = sweep.parts[index](each.dense) - each.current
            moments.add_batch(seen, target, each.weights(of_tokens[index]))
            if len(features) < len(sweep.measured):
                features.append(seen[: sweep.measured[len(features)]])
        chosen = int(getattr(mask, part.kind)[part.layer].sum())
        step = multiple if part.kind == "neurons" else 1
        window = _window(chosen, part.units, step, shrinking)
        if part.kind not in structures:
            window = [0, part.units]
        sizes = allowed(structures, part.kind, part.units, np.array(window)).tolist()
        scores = getattr(importance, part.kind)[part.layer]
        losses = [
            sweep.loss(index, features, *_compensation(moments, part, scores, size))
            for size in sizes
        ]
        curves.append(Curve(part.layer, part.kind, part.units, tuple(sizes), tuple(losses)))
        sweep.climb(index)
    return curves


class Sweep:
    """Goes up two towers at once; knows what the final embedding loses if a sublayer changes."""

    def __init__(
        self,
        dense: Tower,
        current: Tower,
        calibration: Calibration,
        samples: int | None = None,
    ):
        """Hold the streams of all images; of the first `samples` of them losses are measured."""
        self.parts, self.current = dense.sublayers, current.sublayers
        self.tower = current
        self.streams = [Streams.start(dense, current, each) for each in calibration.batches()]
        self.measured = _first([len(each.dense) for each in self.streams], samples)
        self._embeddings = []
        for each, images in zip(self.streams, self.measured, strict=False):
            embedded = dense.project(_run(self.parts, each.dense[:images]), each.first(images))
            if not embedded.isfinite().all():
                raise not_finite(first_break(dense, each.dense))
            self._embeddings.append(embedded)

    def loss(self, index: int, features: list[Tensor], kept: Tensor, weight: Tensor) -> float:
        """Mean 1 - cos to the dense embedding if sublayer `index` keeps and weighs inputs so.

        `features` are those of the images that are measured, batch by batch.
        """
        weight = weight.to(features[0])
        distances = []
        for stream, seen, own in zip(self.streams, features, self._embeddings, strict=False):
            after = stream.current[: len(seen)] + seen[..., kept] @ weight[:-1] + weight[-1]
            inputs = stream.first(len(seen))
            embedded = self.tower.project(_run(self.current[index + 1 :], after), inputs)
            distances.append(1 - cosine_similarity(embedded, own))
        found = torch.cat(distances).mean().item()
        if not isfinite(found):
            raise not_finite(place_of(self.parts[index].layer, self.parts[index].kind))
        return found

    def climb(self, index: int) -> None:
        """Take all streams past sublayer `index`."""
        for each in self.streams:
            same = each.dense is each.current
            each.dense = self.parts[index](each.dense)
            each.current = each.dense if same else self.current[index](each.current)


def _first(batches: Sequence[int], images: int | None) -> list[int]:
    """How many of each batch's images are among the first so many, as far as there are any."""
    if images is None:
        return list(batches)
    starts = np.cumsum([0, *batches[:-1]])
    taken = np.minimum(batches, images - starts)
    return taken[taken > 0].tolist()


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


def _with_all_units(dense: Tower, mask: Mask) -> Tower:
    """The dense tower with head dimensions as in a mask, or itself if that is all of them."""
    if mask.qk_dims is None and mask.value_dims is None:
        return dense
    units = Mask.dense(dense.model.config, dense.kind)
    every = replace(mask, heads=units.heads, neurons=units.neurons)
    return Tower.of(prune(dense.model, every, dense.kind), dense.kind)


def _run(parts: Sequence[Sublayer], hidden: Tensor) -> Tensor:
    for part in parts:
        hidden = part(hidden)
    return hidden


def _window(chosen: int, units: int, multiple: int, shrinking: bool) -> list[int]:
    """Sizes around the one chosen; a sublayer that lost all its units may have a few back.

    All are multiples, or all units. Where there are few such sizes, the next ones are among them.
    """
    shares = [*SHRINKING, *WINDOW] if shrinking else WINDOW
    around = np.array(shares) * max(chosen, 0.04 * units)
    if units <= 64 * multiple:
        around = np.append(around, [chosen - multiple, chosen + multiple])
    sizes = np.round(around / multiple).astype(int) * multiple
    return np.unique(np.clip([*sizes, chosen], 0, units)).tolist()
