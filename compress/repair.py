"""Repair: change the weights that stay so that each sublayer's output is as before pruning.

Stands between mask and smaller tower. Going up the layers, the pruned tower's residual stream runs
beside the dense one's; at each sublayer the output projection is solved anew, by damped least
squares, for what the dense stream carries there and the pruned one doesn't yet:

    min ‖X̃ W̃ - T‖² + λ‖unknowns - what they were‖²,    X̃ = [X, 1],  W̃ = [W; bias].

- `rescale` (arXiv 2204.09656, section 4.3): one factor a head or neuron, the bias stays. The normal
  matrix is X̃ᵀX̃ ∘ W̃W̃ᵀ, summed over each pair of units' rows, and the right-hand side the unit sums
  of X̃ᵀT ∘ W̃: no row for each token and output is ever built.
- `reconstruct`: every weight of the projection and its bias. The normal matrix is X̃ᵀX̃ itself.

All that a solve needs are second moments, summed batch by batch. λ is picked for each sublayer by
the error on an eighth of the images, which is kept out of the sums until λ is known; λ = ∞, nothing
changed, is among the choices.
"""

from dataclasses import dataclass
from math import inf
from typing import Literal

import torch
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from torch import Tensor, nn
from tqdm import tqdm

from compress.calibration import Calibration
from pruning_mechanism import Sublayer, embed, sublayers

Repair = Literal["none", "rescale", "reconstruct"]
WILDEST_FACTOR = 10.0
DAMPINGS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""λ's to choose from, as shares of the normal matrix's mean diagonal."""
HELD_OUT = 8


@dataclass(frozen=True)
class SublayerRepair:
    """How far a sublayer of the pruned tower was from the dense one: ‖X̃W̃ - T‖² / ‖T‖².

    `damping` is None, and the errors are equal, where the weights stay as they were.
    """

    layer: int
    kind: str
    error_before: float
    error_after: float
    damping: float | None = None
    problem: str | None = None


class Moments:
    """Second moments of features X̃ = [X, 1] [t, p + 1] and targets T [t, d], in float64."""

    def __init__(self, inputs: int, outputs: int):
        self.xx = torch.zeros(inputs + 1, inputs + 1, dtype=torch.float64)
        self.xt = torch.zeros(inputs + 1, outputs, dtype=torch.float64)
        self.tt = 0.0

    def add_batch(self, features: Tensor, targets: Tensor) -> None:
        """Add a batch's tokens X [..., p] and T [..., d]."""
        x, t = features.flatten(0, -2).float(), targets.flatten(0, -2).float()
        x = torch.cat([x, x.new_ones(len(x), 1)], dim=1)
        self.xx += (x.T @ x).cpu()
        self.xt += (x.T @ t).cpu()
        self.tt += t.double().square().sum().item()

    def __add__(self, other: "Moments") -> "Moments":
        """The moments of both sets of tokens."""
        both = Moments(len(self.xx) - 1, self.xt.shape[1])
        both.xx, both.xt = self.xx + other.xx, self.xt + other.xt
        both.tt = self.tt + other.tt
        return both

    def error(self, weight: Tensor) -> float:
        """‖X̃W̃ - T‖² / ‖T‖² for a weight W̃ [p + 1, d]."""
        if self.tt == 0:
            return 0.0
        fitted = (weight * (self.xx @ weight)).sum() - 2 * (weight * self.xt).sum()
        return max(0.0, (fitted.item() + self.tt) / self.tt)


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
    del unit_width  # every input of every unit has its own weights
    return solve_damped(moments.xx, moments.xt, weight, damping)


SOLVERS = {"rescale": rescale, "reconstruct": reconstruct}


def solve_damped(normal: Tensor, right: Tensor, prior: Tensor, damping: float) -> Tensor:
    """The Z that minimises tr(ZᵀNZ) - 2 tr(ZᵀR) + λ‖Z - Z₀‖², λ = damping · mean diagonal of N.

    Args:
        normal: N [p, p], float64, positive semi-definite.
        right: R [p, d].
        prior: Z₀ [p, d].
        damping: λ's share.

    Raises:
        LinAlgError: N + λ is not positive definite, or something is not finite.
    """
    if not (torch.isfinite(normal).all() and torch.isfinite(right).all()):
        raise LinAlgError("the moments are not finite")
    strength = damping * normal.diagonal().mean()
    damped = normal + strength * torch.eye(len(normal), dtype=normal.dtype)
    factor = cho_factor(damped.numpy(), lower=True, check_finite=False)
    return prior + torch.from_numpy(cho_solve(factor, (right - normal @ prior).numpy()))


def output_weight(sublayer: Sublayer) -> Tensor:
    """W̃ = [W; bias] [p + 1, d] of a sublayer's output projection, a copy in float64 on the CPU."""
    output = sublayer.output
    return torch.cat([output.weight.T, output.bias[None]]).detach().double().cpu()


@torch.no_grad()
def repair_tower(
    dense: nn.Module,
    smaller: nn.Module,
    calibration: Calibration,
    repair: Repair = "rescale",
    progress: str | None = None,
) -> list[SublayerRepair]:
    """Repair `smaller`, pruned from `dense`, in place, and say how well each sublayer came out.

    The residual streams of the calibration images are held in memory: 8 bytes a token and hidden
    dimension. With `none` the errors are measured and nothing is changed. `progress` is the title
    of a bar.
    """
    streams = [
        (embed(dense, batch.pixels), embed(smaller, batch.pixels))
        for batch in calibration.batches(progress and f"{progress}: images")
    ]
    pairs = list(zip(sublayers(dense), sublayers(smaller), strict=True))
    done = []
    for above, below in tqdm(pairs, desc=progress, unit="sublayer", disable=progress is None):
        inputs, outputs = below.output.in_features, below.output.out_features
        fit, held_out = Moments(inputs, outputs), Moments(inputs, outputs)
        features = []
        for index, (stream, pruned) in enumerate(streams):
            streams[index] = (above(stream), pruned)
            features.append(below.features(pruned))
            target = streams[index][0] - pruned
            cut = len(target) - max(1, len(target) // HELD_OUT)
            fit.add_batch(features[-1][:cut], target[:cut])
            held_out.add_batch(features[-1][cut:], target[cut:])
        done.append(_repair_sublayer(below, fit, held_out, repair))
        for index, batch in enumerate(features):
            stream, pruned = streams[index]
            streams[index] = (stream, pruned + below.output(batch))
    return done


def _repair_sublayer(
    sublayer: Sublayer, fit: Moments, held_out: Moments, repair: Repair
) -> SublayerRepair:
    """Solve for one sublayer's output projection and put the solution in."""
    weight = output_weight(sublayer)
    moments = fit + held_out
    before = moments.error(weight)
    place = (sublayer.layer, sublayer.kind, before)
    if repair == "none" or (repair == "rescale" and not sublayer.units):
        return SublayerRepair(*place, before)
    try:
        damping = _best_damping(fit, held_out, weight, sublayer.unit_width, repair)
        if damping == inf:
            return SublayerRepair(*place, before)
        solved = SOLVERS[repair](moments, weight, sublayer.unit_width, damping)
        problem = _wildness(solved, weight) if repair == "rescale" else None
    except LinAlgError as error:
        problem = f"no solution ({error})"
    if problem:
        name = f"{sublayer.kind} of layer {sublayer.layer}"
        message = f"{name}: {repair} found {problem}; the weights stay as they are"
        return SublayerRepair(*place, before, problem=message)
    sublayer.output.weight.copy_(solved[:-1].T)
    sublayer.output.bias.copy_(solved[-1])
    return SublayerRepair(*place, moments.error(solved), damping)


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
    return min(errors, key=errors.get)


def _wildness(solved: Tensor, weight: Tensor) -> str | None:
    """What is wild about rescaled rows: a factor that is not within the wildest allowed."""
    factors = solved[:-1].norm(dim=1) / weight[:-1].norm(dim=1).clamp(min=1e-12)
    wildest = factors.max().item()
    return None if wildest <= WILDEST_FACTOR else f"a factor of {wildest:.3g}"
