"""Second moments of what output projections get.

What repair, elimination and curves are solved from. Moments are summed batch by batch, so memory
grows with the square of a width and not with the number of images.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor, nn

from compress.calibrating.calibration import Batch
from compress.calibrating.finite import first_break
from compress.calibrating.token_weights import TokenPlaces, TokenWeights
from compress.errors import not_finite
from pruning_mechanism import Sublayer, Tower


def precise(values: Tensor) -> Tensor:
    """Values in single precision, or in double if they are."""
    return values if values.dtype == torch.float64 else values.float()


class Moments:
    """Second moments of features X̃ = [X, 1] [t, p + 1] and targets T [t, d], in float64.

    With `bias` False there is no column of ones: for a projection that adds nothing. `precision` is
    that of a batch's sums, relative to the second moments.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = True):
        self.xx = torch.zeros(inputs + bias, inputs + bias, dtype=torch.float64)
        self.xt = torch.zeros(inputs + bias, outputs, dtype=torch.float64)
        self.tt = 0.0
        self.precision = 0.0
        self._bias = bias

    def add_batch(self, features: Tensor, targets: Tensor, weights: Tensor | None = None) -> None:
        """Add a batch's tokens X [..., p] and T [..., d], weighted by `weights` [...] or [n]."""
        x, t = precise(features), precise(targets)
        self.precision = max(self.precision, torch.finfo(x.dtype).eps)
        if self._bias:
            x = torch.cat([x, x.new_ones(*x.shape[:-1], 1)], dim=-1)
        if weights is not None:
            scale = weights.sqrt()[..., None].to(x)
            x, t = x * scale, t * scale
        x, t = x.flatten(0, -2), t.flatten(0, -2)
        self.xx += (x.T @ x).cpu()
        self.xt += (x.T @ t).cpu()
        self.tt += t.cpu().double().square().sum().item()  # mps has no float64

    @property
    def finite(self) -> bool:
        """Whether all that was added is."""
        return bool(self.xx.isfinite().all() and self.xt.isfinite().all() and isfinite(self.tt))

    def __add__(self, other: "Moments") -> "Moments":
        """The moments of both sets of tokens."""
        both = Moments(len(self.xx) - self._bias, self.xt.shape[1], self._bias)
        both.xx, both.xt = self.xx + other.xx, self.xt + other.xt
        both.tt = self.tt + other.tt
        both.precision = max(self.precision, other.precision)
        return both

    def of_inputs(self, kept: Tensor) -> "Moments":
        """The moments of these inputs alone, bool[p]."""
        rows = torch.cat([kept, kept.new_ones(int(self._bias))])
        some = Moments(int(kept.sum()), self.xt.shape[1], self._bias)
        some.xx, some.xt, some.tt = self.xx[rows][:, rows], self.xt[rows], self.tt
        some.precision = self.precision
        return some

    def centred(self) -> "Centred":
        """What is left of the moments when the bias is free; all of them if there is none."""
        if not self._bias:
            return Centred(self.xx, self.xt)
        count = self.xx[-1, -1].clamp(min=torch.finfo(torch.float64).tiny)
        x, t = self.xx[:-1, -1] / count, self.xt[-1] / count
        return Centred(
            self.xx[:-1, :-1] - count * torch.outer(x, x),
            self.xt[:-1] - count * torch.outer(x, t),
            x,
            t,
        )

    def error(self, weight: Tensor) -> float:
        """‖X̃W̃ - T‖² / ‖T‖² for a weight W̃ [p + 1, d]."""
        if self.tt == 0:
            return 0.0
        fitted = (weight * (self.xx @ weight)).sum() - 2 * (weight * self.xt).sum()
        return max((fitted.item() + self.tt) / self.tt, 0.0)  # in this order NaN stays NaN


@dataclass(frozen=True)
class Centred:
    """Σ (x - x̄)ᵀ(x - x̄) [p, p], Σ (x - x̄)ᵀ(t - t̄) [p, d], and the means x̄ [p] and t̄ [d].

    Without means nothing was centred.
    """

    xx: Tensor
    xt: Tensor
    mean_x: Tensor | None = None
    mean_t: Tensor | None = None


def output_weight(sublayer: Sublayer) -> Tensor:
    """W̃ = [W; bias] [p + 1, d] of a sublayer's output projection, a copy in float64 on the CPU."""
    return linear_weight(sublayer.output)


def linear_weight(layer: nn.Linear) -> Tensor:
    """W̃ = [W; bias] [p + 1, d], or W [p, d] if there is no bias, a copy in float64 on the CPU."""
    rows = [layer.weight.T] if layer.bias is None else [layer.weight.T, layer.bias[None]]
    return torch.cat(rows).detach().cpu().double()


@torch.no_grad()
def dense_moments(
    tower: Tower, batches: Iterable[Batch], weights: Sequence[TokenWeights] | None = None
) -> list[Moments]:
    """Second moments of each sublayer's features, with its own output as the target.

    `weights` are those of the tokens after each sublayer; without them all count alike that can
    reach the embedding.

    Raises:
        UserError: activations are not finite.
    """
    parts = tower.sublayers
    of_tokens = weights or [TokenWeights()] * len(parts)
    sums = [Moments(part.output.in_features, part.output.out_features) for part in parts]
    for batch in batches:
        inputs = batch.inputs(tower.kind)
        hidden = tower.embed(inputs)
        places = TokenPlaces.of(tower, inputs, hidden)
        for part, moments, token_weights in zip(parts, sums, of_tokens, strict=True):
            features = part.features(hidden)
            output = part.output(features)
            moments.add_batch(features, output, token_weights.spread(places))
            hidden = hidden + output
        if not hidden.isfinite().all():
            raise not_finite(first_break(tower, tower.embed(inputs)))
    return sums
