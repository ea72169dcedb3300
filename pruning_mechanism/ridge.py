"""Ridge regression in closed form, with the error on what is left out of it.

Below alignment, early exits, learned ranks and the migration of collections. With features X
[n, p] and targets Y [n, e],

    min ‖Y - XW - 1b‖² + λ‖W - W₀‖²,

the intercept b free; W₀ is what there was before, or 0. Which of the two, and which λ, is decided
by the leave-one-out error: that of all n regressions that lack one row each, for all λ from one
eigendecomposition (Allen's PRESS, Technometrics 1974). It is exact, for fewer rows than features
too, for features that are given: whoever standardises them by all rows leaves no row out of that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

STRENGTHS = tuple((10.0 ** np.arange(-7, 2.5, 0.5)).tolist())
"""λ's to choose from, as shares of the mean eigenvalue of XᵀX, centred."""
STRONGER = tuple((10.0 ** np.arange(2.5, 5, 0.5)).tolist())
"""And, where fewer rows than features leave most eigenvalues 0, so many times it."""
SURE = 2.0
"""Standard errors of its gain by which a regression must be better than the prior."""
LEAST_DEVIATION = 4 * torch.finfo(torch.float16).eps
"""A column that varies less, as a share of its own size or of what size columns have, says nothing
that half precision could tell from rounding."""
SILENCED = 1e6
"""What such a column's least deviation is multiplied by."""


@dataclass(frozen=True)
class Ridge:
    """A ridge regression of targets [n, e] on features [n, p].

    `weight` is W [p, e] and `intercept` [e], both float64; `strength` is λ's share, inf where the
    prior is left as it is. Errors are mean squared distances: `before` with the prior, `after` on
    the rows that it was solved on, `left_out` with each of them left out in turn. `left_out_loss`
    is mean 1 - cos between the targets and what is given for each row when it is left out. `tried`
    is the least leave-one-out error there was, with `unsure`, the standard error of what it gains
    over the prior; `left_out` is another only where the prior stays.
    """

    weight: Tensor
    intercept: Tensor
    strength: float
    before: float
    after: float
    left_out: float
    left_out_loss: float
    tried: float
    unsure: float

    @property
    def as_it_was(self) -> bool:
        """Whether the prior is left as it is."""
        return self.strength == inf


def ridge(
    features: Tensor,
    targets: Tensor,
    prior: Tensor | None = None,
    intercept: Tensor | None = None,
    strengths: Sequence[float] | None = None,
    together: int = 1,
) -> Ridge:
    """The ridge regression of least leave-one-out error, towards a prior or towards 0.

    The least of many estimates is too low, the more so the fewer the rows. Hence a prior stays
    unless the regression gains more than `SURE` standard errors of the gain, paired by rows.

    Args:
        features: X [n, p], of two runs at least.
        targets: Y [n, e].
        prior: W₀ [p, e], what there was before; None: nothing was.
        intercept: [e], of the prior; None: 0.
        strengths: λ's to choose from, as shares of the mean eigenvalue of XᵀX, centred; by default
            `STRENGTHS`, and those of `STRONGER` that keep to their most, 100 mean eigenvalues, of
            what isn't 0.
        together: rows come in runs of this length, of which one is left out at a time: rows of one
            image say much about one another.

    Raises:
        ValueError: there is but one run.
    """
    if len(features) < 2 * together:
        raise ValueError(f"{len(features)} rows are too few to leave {together} out")
    x, y = features.double(), targets.double()
    nothing = x.new_zeros(x.shape[1], y.shape[1])
    starts = [nothing] if prior is None or not prior.any() else [nothing, prior.double()]
    parts = Principal.of(x)
    if strengths is None:
        most = STRENGTHS[-1] * x.shape[1] / len(parts.values)
        strengths = (*STRENGTHS, *(stronger for stronger in STRONGER if stronger <= most))
    choices = (
        (parts.fit(y - x @ start, strength, together), start, strength)
        for start in starts
        for strength in strengths
    )
    fit, start, strength = min(choices, key=lambda choice: choice[0].left_out.square().sum())
    own = y.new_zeros(y.shape[1]) if intercept is None else intercept.double()
    given = y.mean(0).expand_as(y) if prior is None else x @ prior.double() + own
    unchanged, left_out = _squares(y - given, together), _squares(fit.left_out, together)
    before, least = unchanged.mean().item(), left_out.mean().item()
    unsure = ((unchanged - left_out).std() / len(left_out) ** 0.5).item()
    if prior is not None and before - least <= SURE * unsure:
        return Ridge(
            prior.double(), own, inf, before, before, before, _loss(given, y), least, unsure
        )  # fmt: skip
    change, offset = parts.solution(y - x @ start, strength)
    after = fit.errors.square().sum(1).mean().item()
    loss = _loss(y - fit.left_out, y)
    return Ridge(start + change, offset, strength, before, after, least, loss, least, unsure)


def deviations(values: Tensor) -> Tensor:
    """What to divide columns of values [n, p] by to standardise them, [p].

    Their standard deviations. A column that varies by less than `LEAST_DEVIATION` of its root mean
    square, or of the columns' median one, is divided by so much that no λ lets it say anything:
    its weight could become as large as it likes, and beyond half precision. 1 where all is 0.
    """
    if not values.shape[1]:
        return values.new_ones(0)
    sizes = values.square().mean(0).sqrt()
    least = LEAST_DEVIATION * sizes.clamp(min=sizes.median())
    found = values.std(0)
    found = found.where(found >= least, SILENCED * least)
    return found.where(found > 0, 1.0)


def _squares(errors: Tensor, together: int) -> Tensor:
    """Mean squared distances of each run of rows, [n / together]."""
    runs: Tensor = errors.square().sum(1).unflatten(0, (-1, together))
    return runs.mean(1)


def _loss(found: Tensor, targets: Tensor) -> float:
    """Mean 1 - cos between rows."""
    return (1 - cosine_similarity(found, targets)).mean().item()


@dataclass(frozen=True)
class Fit:
    """What a ridge regression leaves of targets: `errors` [n, e] on the rows it was solved on.

    `left_out` [n, e] are those on each row by the regression that lacks its run of rows.
    """

    errors: Tensor
    left_out: Tensor


@dataclass(frozen=True)
class Principal:
    """The features of a ridge regression with a free intercept, in their principal axes.

    `centred` is X [n, p] without its `mean` [p]. X = U S^½ Vᵀ; `values` are S [k] and `axes`
    U [n, k], orthonormal and orthogonal to 1, k = min(n - 1, p).
    """

    centred: Tensor
    mean: Tensor
    values: Tensor
    axes: Tensor

    @classmethod
    def of(cls, features: Tensor) -> "Principal":
        """The principal axes of features [n, p], float64, n at least 2.

        A reflection that takes 1 / n^½ to the first row takes the intercept out with that row: the
        n - 1 others are a regression without one. Of more of them than features, a QR decomposition
        leaves as many as features.
        """
        mean = features.mean(0)
        centred, root = features - mean, len(features) ** 0.5
        rows, orthogonal = centred[1:] - centred[0] / (root + 1), None
        if len(rows) > rows.shape[1]:
            orthogonal, rows = torch.linalg.qr(rows)
        values, axes = torch.linalg.eigh(rows @ rows.T)
        if orthogonal is not None:
            axes = orthogonal @ axes
        sums = axes.sum(0) / root
        axes = torch.cat([-sums[None], axes - sums / (root + 1)])
        return cls(centred, mean, values.clamp(min=0), axes)

    def fit(self, targets: Tensor, strength: float, together: int = 1) -> Fit:
        """What is left of targets Y [n, e] by the λ of this share of the mean eigenvalue.

        The errors are E = M(Y - Ȳ), M = U f Uᵀ + (I - UUᵀ - 11ᵀ / n) with f = λ / (S + λ); those
        without the rows g are M_gg⁻¹ E_g, for a single row E_i / (1 - h_i). Here that is a sum of
        positive terms: 1 - h loses nothing to rounding as the leverage h comes near 1.
        """
        centred = targets - targets.mean(0)
        right = self.axes.T @ centred
        damping = self._damping(strength)
        kept = damping / (self.values + damping)
        errors = self.axes @ (kept[:, None] * right)
        runs = self.axes.unflatten(0, (-1, together))
        apart = runs * kept @ runs.mT
        if len(self.axes) > len(self.values) + 1:
            errors += centred - self.axes @ right
            apart += torch.eye(together).to(apart) - 1 / len(self.axes) - runs @ runs.mT
        left_out = torch.linalg.solve(apart, errors.unflatten(0, (-1, together)))
        return Fit(errors, left_out.flatten(0, 1))

    def solution(self, targets: Tensor, strength: float) -> tuple[Tensor, Tensor]:
        """The weight [p, e] and the intercept [e] for targets Y [n, e]."""
        offset = targets.mean(0)
        right = self.axes.T @ (targets - offset)
        damped = self.values + self._damping(strength)
        weight = self.centred.T @ (self.axes @ (right / damped[:, None]))
        return weight, offset - self.mean @ weight

    def _damping(self, share: float) -> float:
        """λ, more than 0 even if no feature varies."""
        return share * self.values.sum().item() / len(self.mean) or 1.0
