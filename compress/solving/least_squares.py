"""Damped least squares from second moments.

How damping is measured, so that it doesn't depend on how a tower is written, is in
`compress.solving.damping`.
"""

import torch
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from torch import Tensor


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
    strength = damping * normal.diagonal().mean().item()
    return prior + solve_positive(normal, right - normal @ prior, strength)


def solve_positive(normal: Tensor, right: Tensor, strength: float) -> Tensor:
    """(N + λ)⁻¹ R for N [p, p] and R [p, d], float64.

    Raises:
        LinAlgError: N + λ is not positive definite.
    """
    damped = normal + strength * torch.eye(len(normal), dtype=normal.dtype)
    factor = cho_factor(damped.numpy(), lower=True, check_finite=False)
    return torch.from_numpy(cho_solve(factor, right.numpy()))
