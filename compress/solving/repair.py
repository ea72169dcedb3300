"""Repair: change the weights that stay so that each sublayer's output is as before pruning.

Stands between mask and smaller tower. Going up the layers, the pruned tower's residual stream runs
beside the dense one's; at each sublayer the output projection is solved anew, by damped least
squares, for what the dense stream carries there and the pruned one doesn't yet:

    min ‖X̃ W̃ - T‖² + λ‖change of the unknowns‖²,    X̃ = [X, 1],  W̃ = [W; bias],

each token's row weighted by what the token matters to the final embedding
(`compress.calibrating.token_weights`), the change measured by what it does, whatever coordinates a
head is written in (`compress.solving.damping`).

- `rescale` (arXiv 2204.09656, section 4.3): one factor a head or neuron, the bias stays, with all
  that the dense tower's values add as a constant. The normal
  matrix is X̃ᵀX̃ ∘ W̃W̃ᵀ, summed over each pair of units' rows, and the right-hand side the unit sums
  of X̃ᵀT ∘ W̃: no row for each token and output is ever built.
- `reconstruct`: every weight of the projection, and its bias, which isn't damped. At the top the
  projection into the embedding space is solved for the dense tower's embeddings.

All that a solve needs are second moments, summed batch by batch. λ is picked for each sublayer by
the error on an eighth of the images, which is kept out of the sums until λ is known; λ = ∞, nothing
changed, is among the choices.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf

import torch
from scipy.linalg import LinAlgError
from torch import Tensor, nn
from tqdm import tqdm

from compress.calibrating.calibration import Calibration
from compress.calibrating.moments import Moments, linear_weight
from compress.calibrating.streams import Streams
from compress.calibrating.token_weights import TokenWeights
from compress.choices import Repair
from compress.errors import not_finite, place_of
from compress.solving.damping import solve_units
from compress.solving.least_squares import solve_damped
from pruning_mechanism import Tower
from pruning_mechanism.heads import constants_moved

WILDEST_FACTOR = 10.0
DAMPINGS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""λ's to choose from: shares of 1 in standardised units."""
HELD_OUT = 8
"""One image of so many is kept out of the sums until λ is known."""


@dataclass(frozen=True)
class SublayerRepair:
    """How far a sublayer of the pruned tower was from the dense one: ‖X̃W̃ - T‖² / ‖T‖².

    Where tokens have weights, so have they in the norms.

    `damping` is None, and the errors are equal, where the weights stay as they were.
    """

    layer: int
    kind: str
    error_before: float
    error_after: float
    damping: float | None = None
    problem: str | None = None


def rescale(moments: Moments, weight: Tensor, unit_width: int, damping: float) -> Tensor:
    """W̃ with the best factor for each unit.

    Args:
        moments: of the features X̃ [t, u * unit_width + 1] and the targets T [t, d].
        weight: W̃ [u * unit_width + 1, d], float64; its last row is the bias, which stays.
        unit_width: inputs of a unit: the head dimension, or 1.
        damping: λ as a share of the normal matrix's mean diagonal.

    Raises:
        LinAlgError: the damped normal matrix is not positive definite, or not finite.
    """
    pairs = moments.xx * (weight @ weight.T)
    right = (moments.xt * weight).sum(1) - pairs[-1]  # what the bias does already is no target
    normal = pairs[:-1, :-1].unflatten(0, (-1, unit_width)).unflatten(2, (-1, unit_width))
    factors = solve_damped(
        normal.sum((1, 3)),
        right[:-1].unflatten(0, (-1, unit_width)).sum(1, keepdim=True),
        torch.ones(normal.shape[0], 1, dtype=weight.dtype),
        damping,
    )
    return torch.cat([weight[:-1] * factors.repeat_interleave(unit_width, dim=0), weight[-1:]])


def reconstruct(moments: Moments, weight: Tensor, unit_width: int, damping: float) -> Tensor:
    """W̃ solved anew, bias included; the arguments are those of `rescale`."""
    return solve_units(moments, weight, unit_width, damping)


SOLVERS = {"rescale": rescale, "reconstruct": reconstruct}


@torch.no_grad()
def repair_tower(
    dense: Tower,
    smaller: Tower,
    calibration: Calibration,
    repair: Repair = "reconstruct",
    progress: str | None = None,
    weights: Sequence[TokenWeights] | None = None,
) -> list[SublayerRepair]:
    """Repair `smaller`, pruned from `dense`, in place, and say how well each sublayer came out.

    The residual streams of the calibration inputs are held in memory: 8 bytes a token and hidden
    dimension. With `none` the errors are measured and nothing is changed.

    Args:
        dense: the tower as it was.
        smaller: the tower as cut.
        calibration: images or texts to solve on.
        repair: what is solved for.
        progress: the title of a bar.
        weights: of the tokens after each sublayer, from `compress.calibrating.token_weights`; by
            default all count alike, as in arXiv 2204.09656, that can reach the embedding.

    Raises:
        UserError: the activations of one of the towers are not finite.
    """
    if repair != "none":
        _keep_constants(dense, smaller)
    batches = calibration.batches(progress and f"{progress}: images")
    streams = [Streams.start(dense, smaller, batch) for batch in batches]
    left_out = _left_out(streams)
    parts = dense.sublayers
    weights = weights or [TokenWeights()] * len(parts)
    pairs = list(zip(parts, smaller.sublayers, weights, strict=True))
    bar = tqdm(pairs, desc=progress, unit="sublayer", disable=progress is None)
    done = []
    for above, below, of_tokens in bar:
        inputs, outputs = below.output.in_features, below.output.out_features
        fit, held_out = Moments(inputs, outputs), Moments(inputs, outputs)
        for stream, out in zip(streams, left_out, strict=True):
            stream.dense.hidden = above(stream.dense.hidden)
            features = below.features(stream.smaller.hidden)
            target = stream.dense.hidden - stream.smaller.hidden
            scale = stream.dense.weights(of_tokens)
            fit.add_batch(features[~out], target[~out], scale[~out])
            held_out.add_batch(features[out], target[out], scale[out])
        place = (below.layer, below.kind)
        done.append(_repair_linear(below.output, place, fit, held_out, repair, below.unit_width))
        # computing the sublayer again costs less than holding its features for all images
        for stream in streams:
            stream.smaller.hidden = below(stream.smaller.hidden)
    if repair == "reconstruct" and isinstance(smaller.final, nn.Linear):
        done.append(_repair_projection(dense, smaller, smaller.final, streams))
    return done


def _keep_constants(dense: Tower, smaller: Tower) -> None:
    """Leave what the dense tower's values add as a constant in the smaller one's biases, in place.

    A head's values may have any constant, if the bias of the output projection takes it back: what
    the heads that went had of it is no loss.
    """
    for above, below in zip(dense.sublayers[::2], smaller.sublayers[::2], strict=True):
        with constants_moved([above]):
            below.output.bias.copy_(above.output.bias)
        if below.units:
            below.attention.v_proj.bias.zero_()


def _left_out(streams: Sequence[Streams]) -> list[Tensor]:
    """Which images of each batch are kept out of the sums, bool[b], however they are batched."""
    images = [len(stream.dense.hidden) for stream in streams]
    return list((torch.arange(sum(images)) % HELD_OUT == 1).split(images))


def _repair_projection(
    dense: Tower, smaller: Tower, final: nn.Linear, streams: Sequence[Streams]
) -> SublayerRepair:
    """Solve `smaller`'s `final` projection anew, for the dense tower's embeddings."""
    sizes = (final.in_features, final.out_features, final.bias is not None)
    fit, held_out = Moments(*sizes), Moments(*sizes)
    seen: list[Tensor] = []
    hook = final.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    with hook:
        for stream, out in zip(streams, _left_out(streams), strict=True):
            smaller.project(stream.smaller.hidden, stream.smaller.inputs)
            features = seen.pop()
            target = dense.project(stream.dense.hidden, stream.dense.inputs)
            fit.add_batch(features[~out], target[~out])
            held_out.add_batch(features[out], target[out])
    place = (len(smaller.layers), "projection")
    return _repair_linear(final, place, fit, held_out, "reconstruct", 1)


def _repair_linear(
    linear: nn.Linear,
    place: tuple[int, str],
    fit: Moments,
    held_out: Moments,
    repair: Repair,
    unit_width: int,
) -> SublayerRepair:
    """Solve for one output projection and put the solution in; `place` is its layer and kind."""
    weight = linear_weight(linear)
    moments = fit + held_out
    if not (moments.finite and weight.isfinite().all()):
        raise not_finite(place_of(*place))
    before = moments.error(weight)
    unchanged = SublayerRepair(*place, before, before)
    if repair == "none" or (repair == "rescale" and not linear.in_features):
        return unchanged
    try:
        solved, damping = solve_best(fit, held_out, weight, unit_width, repair)
        if damping == inf:
            return unchanged
        problem = _wildness(solved, weight) if repair == "rescale" else None
    except LinAlgError as error:
        problem = f"no solution ({error})"
    if problem:
        message = f"{place_of(*place)}: {repair} found {problem}; the weights stay as they are"
        return replace(unchanged, problem=message)
    linear.weight.copy_(solved[: linear.in_features].T)
    if linear.bias is not None:
        linear.bias.copy_(solved[-1])
    return replace(unchanged, error_after=moments.error(solved), damping=damping)


def solve_best(
    fit: Moments, held_out: Moments, weight: Tensor, unit_width: int, repair: Repair
) -> tuple[Tensor, float]:
    """The solution on all images under the best damping, and that; the weight itself under ∞.

    Raises:
        LinAlgError: there is no solution.
    """
    damping = _best_damping(fit, held_out, weight, unit_width, repair)
    if damping == inf:
        return weight, damping
    return SOLVERS[repair](fit + held_out, weight, unit_width, damping), damping


def _best_damping(
    fit: Moments, held_out: Moments, weight: Tensor, unit_width: int, repair: Repair
) -> float:
    """The damping whose solution on `fit` has the least error on `held_out`.

    Raises:
        LinAlgError: even the strongest has no solution.
    """
    errors = {inf: held_out.error(weight)}
    for damping in sorted(DAMPINGS, reverse=True):
        try:
            solved = SOLVERS[repair](fit, weight, unit_width, damping)
        except LinAlgError:
            if len(errors) == 1:
                raise
            break
        errors[damping] = held_out.error(solved)
    return min(errors, key=errors.__getitem__)


def _wildness(solved: Tensor, weight: Tensor) -> str | None:
    """What is wild about rescaled rows: a factor that is not within the wildest allowed."""
    factors = solved[:-1].norm(dim=1) / weight[:-1].norm(dim=1).clamp(min=1e-12)
    wildest = factors.max().item()
    return None if wildest <= WILDEST_FACTOR else f"a factor of {wildest:.3g}"
