"""Damped least squares that don't depend on how a tower is written.

Stands between moments and what is solved from them: repair, curves, recoverable importance and head
dimensions. A head's values may be written in any basis, its output rows in the inverse one, and any
constant may be added to them: the tower computes the same. So damping, too, must be the same. The
change of a weight counts by what it does to the unit's own output over the calibration tokens,

    min ‖XW + b - T‖² + λ Σ_units ‖(X_u - x̄_u)(W_u - W₀_u)‖²,

the bias b free. For a neuron this is ridge regression on standardised inputs, for a head on
whitened ones; λ is a share of 1 in either.
"""

from dataclasses import dataclass

import torch
from scipy.linalg import LinAlgError
from torch import Tensor

from compress.calibrating.moments import Moments
from compress.solving.least_squares import solve_positive

ROUNDING = 100
"""Times the precision of the sums: shares of the second moments that are taken for rounding."""


@dataclass(frozen=True)
class Bases:
    """For each unit a basis B in which its inputs, z = xB, have covariance 1, and its inverse.

    Both are [u, w, w]. What never changes, but for rounding, isn't seen in z: there B and what is
    called its inverse are 0, and weights stay as they are.
    """

    into: Tensor
    out: Tensor

    @classmethod
    def of(cls, moments: Moments, unit_width: int) -> "Bases":
        """The bases of u * w inputs, `unit_width` = w of them a unit, by their finite moments."""
        covariance = moments.centred().xx
        variances, power = covariance.diagonal(), moments.xx.diagonal()[: len(covariance)]
        least = ROUNDING * moments.precision * power
        alive = variances > least
        doubt = (least / variances).where(alive, 0.0).view(-1, unit_width).amax(1, keepdim=True)
        deviations = variances.where(alive, 1.0).sqrt().view(-1, unit_width)
        alive = alive.view(-1, unit_width)
        blocks = unit_blocks(covariance, unit_width) / deviations[:, :, None] / deviations[:, None]
        blocks = blocks * alive[:, :, None] * alive[:, None]
        values, vectors = torch.linalg.eigh((blocks + blocks.mT) / 2)
        real = values > doubt
        roots = values.where(real, 1.0).sqrt()
        into = vectors * (real / roots)[:, None] / deviations[:, :, None]
        out = (vectors * (real * roots)[:, None]).mT * deviations[:, None]
        return cls(into, out)

    def rows(self, rows: Tensor) -> Tensor:
        """BᵀR for rows R [u * w, n]: of an input x, what belongs to z."""
        return _blockwise(self.into.mT, rows)

    def normal(self, normal: Tensor) -> Tensor:
        """BᵀNB for a normal matrix N [u * w, u * w] of inputs x."""
        return self.rows(self.rows(normal).T)

    def weight(self, weight: Tensor) -> Tensor:
        """B⁻¹W: the weight of z that does what W [u * w, n] does to x."""
        return _blockwise(self.out, weight)

    def change(self, change: Tensor) -> Tensor:
        """BC: the change of the weight of x that a change C [u * w, n] of that of z is."""
        return _blockwise(self.into, change)


def _blockwise(blocks: Tensor, rows: Tensor) -> Tensor:
    return (blocks @ rows.reshape(len(blocks), blocks.shape[1], -1)).flatten(0, 1)


def whitening(correlations: Tensor, floor: float) -> Tensor:
    """A basis B [..., w, w] with BᵀCB = 1, for correlations C [..., w, w].

    Eigenvalues below a share `floor` of the largest are taken for that; C = 0 for the identity.
    """
    values, vectors = torch.linalg.eigh((correlations + correlations.mT) / 2)
    largest = values[..., -1:]
    least = (floor * largest).where(largest > 0, 1.0)
    basis: Tensor = vectors / values.maximum(least).sqrt()[..., None, :]
    return basis


def unit_blocks(normal: Tensor, unit_width: int) -> Tensor:
    """The diagonal blocks [u, w, w] of a matrix [u * w, u * w]."""
    units = len(normal) // unit_width
    blocks = normal.view(units, unit_width, units, unit_width).diagonal(dim1=0, dim2=2)
    return blocks.permute(2, 0, 1)


def solve_units(moments: Moments, prior: Tensor, unit_width: int, damping: float) -> Tensor:
    """W̃ = [W; b] of the least damped error; see the module.

    Args:
        moments: of X̃ [t, u * w + 1] and T [t, d]; or of X [t, u * w], where there is no bias.
        prior: W̃₀ [u * w + 1, d], or W₀ [u * w, d], float64; a bias is solved for whatever it was.
        unit_width: w, inputs of a unit.
        damping: λ.

    Raises:
        LinAlgError: the damped normal matrix is not positive definite, or not finite.
    """
    centred = moments.centred()
    weight = prior[: len(centred.xx)]
    if not (centred.xx.isfinite().all() and centred.xt.isfinite().all()):
        raise LinAlgError("the moments are not finite")
    if len(weight):
        bases = Bases.of(moments, unit_width)
        missed = bases.rows(centred.xt - centred.xx @ weight)
        change = solve_positive(bases.normal(centred.xx), missed, damping)
        weight = weight + bases.change(change)
    if centred.mean_x is None or centred.mean_t is None:
        return weight
    return torch.cat([weight, (centred.mean_t - centred.mean_x @ weight)[None]])
