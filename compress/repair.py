"""Repair: change the weights that stay so that each sublayer's output is as before pruning.

Stands between mask and smaller tower. Going up the layers, the pruned tower's residual stream runs
beside the dense one's; at each sublayer the output projection is solved anew, by least squares,
for what the dense stream carries there and the pruned one doesn't yet. All that a solve needs are
second moments, which are summed batch by batch.

`rescale` (arXiv 2204.09656, section 4.3) has one factor a head or neuron for its unknowns. Its
normal matrix is XᵀX ∘ WᵀW, summed over each pair of units' inputs, and its right-hand side the
unit sums of (XᵀT) ∘ Wᵀ: no row for each token and output is ever built.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from torch import Tensor, nn
from tqdm import tqdm

from compress.calibration import Calibration
from pruning_mechanism import Sublayer, embed, sublayers

Repair = Literal["none", "rescale"]
WILDEST_FACTOR = 10.0
DAMPING = 1e-3


@dataclass(frozen=True)
class SublayerRepair:
    """How far a sublayer of the pruned tower was from the dense one: ‖XW - T‖² / ‖T‖²."""

    layer: int
    kind: str
    error_before: float
    error_after: float
    problem: str | None = None


class Moments:
    """Second moments of features X [t, p] and targets T [t, d], summed batch by batch."""

    def __init__(self, inputs: int, outputs: int):
        self.xx = torch.zeros(inputs, inputs, dtype=torch.float64)
        self.xt = torch.zeros(inputs, outputs, dtype=torch.float64)
        self.tt = 0.0

    def add_batch(self, features: Tensor, targets: Tensor) -> None:
        """Add a batch's tokens; leading dimensions are flattened."""
        x, t = features.flatten(0, -2).float(), targets.flatten(0, -2).float()
        self.xx += (x.T @ x).cpu()
        self.xt += (x.T @ t).cpu()
        self.tt += t.double().square().sum().item()

    def error(self, weight: Tensor) -> float:
        """‖XW - T‖² / ‖T‖² for a weight W [p, d]."""
        if self.tt == 0:
            return 0.0
        fitted = (weight * (self.xx @ weight)).sum() - 2 * (weight * self.xt).sum()
        return max(0.0, (fitted.item() + self.tt) / self.tt)


def rescale_factors(
    moments: Moments, weight: Tensor, unit_width: int, damping: float = DAMPING
) -> Tensor:
    """The factors r [u] that minimise ‖Σ_u r_u X_u W_u - T‖² + λ‖r - 1‖².

    Args:
        moments: of the features X [t, u * unit_width] and the targets T [t, d].
        weight: W [u * unit_width, d], float64.
        unit_width: inputs of a unit: the head dimension, or 1.
        damping: λ as a share of the normal matrix's mean diagonal.

    Raises:
        LinAlgError: the damped normal matrix is not positive definite, or not finite.
    """
    pairs = moments.xx * (weight @ weight.T)
    normal = pairs.unflatten(0, (-1, unit_width)).unflatten(2, (-1, unit_width)).sum((1, 3))
    right = (moments.xt * weight).sum(1).unflatten(0, (-1, unit_width)).sum(1)
    if not (torch.isfinite(normal).all() and torch.isfinite(right).all()):
        raise LinAlgError("the moments are not finite")
    ones = torch.ones_like(right)
    strength = damping * normal.diagonal().mean()
    damped = normal + strength * torch.eye(len(normal), dtype=normal.dtype)
    factor = cho_factor(damped.numpy(), lower=True)
    return ones + torch.from_numpy(cho_solve(factor, (right - normal @ ones).numpy()))


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
        features, moments = [], Moments(below.output.in_features, below.output.out_features)
        for index, (stream, pruned) in enumerate(streams):
            stream = above(stream)
            inputs = below.features(pruned)
            moments.add_batch(inputs, stream - pruned - below.output.bias)
            streams[index] = (stream, pruned)
            features.append(inputs)
        done.append(_repair_sublayer(below, moments, repair))
        for index, inputs in enumerate(features):
            stream, pruned = streams[index]
            streams[index] = (stream, pruned + below.output(inputs))
    return done


def _repair_sublayer(sublayer: Sublayer, moments: Moments, repair: Repair) -> SublayerRepair:
    """Solve for one sublayer's output projection and put the solution in."""
    weight = sublayer.output.weight.T.double().cpu()
    before = moments.error(weight)
    unchanged = SublayerRepair(sublayer.layer, sublayer.kind, before, before)
    if repair == "none" or not sublayer.units:
        return unchanged
    try:
        factors = rescale_factors(moments, weight, sublayer.unit_width)
        wildest = factors.abs().max().item()
        problem = f"a factor of {wildest:.3g}" if not wildest <= WILDEST_FACTOR else None
    except LinAlgError as error:
        problem = f"no solution ({error})"
    if problem:
        name = f"{sublayer.kind} of layer {sublayer.layer}"
        message = f"{name}: rescale found {problem}; the factors stay 1"
        return SublayerRepair(sublayer.layer, sublayer.kind, before, before, message)
    scaled = weight * factors.repeat_interleave(sublayer.unit_width)[:, None]
    sublayer.output.weight.copy_(scaled.T)
    return SublayerRepair(sublayer.layer, sublayer.kind, before, moments.error(scaled))
