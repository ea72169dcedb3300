"""Alignment: the map from a first stage's own features to the last stage's embedding.

Stands after every rule that leaves out tokens or layers, and may stand after pruning. What the
tower still computes is read off as well as it can be: from [class token, mean of the patch tokens,
each standing for as many patches as its size says], each layer-normalised, and random features of
these, by ridge regression in closed form. Images only.

    min ‖Y - Z̃W‖² + λ‖W - W₀‖²,    Z̃ = [Z, GELU(ZR + r)], all standardised,

the intercept free. Y [n, e] are the last stage's embeddings, Z [n, 2d] the features, and W₀ is
either the projection that is replaced or 0. Which of the two, and which λ, is decided by the
leave-one-out error, exactly and for all λ from one eigendecomposition (Allen's PRESS, Technometrics
1974). That the projection stays as it is is among the choices. The random features (Rahimi and
Recht, NeurIPS 2008) make the map a little crooked.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from compress.calibration import Calibration
from compress.finite import not_finite
from pruning_mechanism import Tower, align, pooled_only
from pruning_mechanism.reduced_tower import AlignedProjection

STRENGTHS = tuple((10.0 ** np.arange(-7, 2.5, 0.5)).tolist())
"""λ's to choose from, as shares of the mean eigenvalue of the features' second moments."""
RANDOM_SCALE = 0.15
"""Standard deviation of the random features, the others' being 1: they are shrunk more."""
RANDOM_SPREAD = 0.5
"""Standard deviation of what GELU gets; the wider, the wigglier are the features."""
FEATURES_OF_HIDDEN = 4
"""Random features for each hidden dimension, if nothing else is said."""


@dataclass(frozen=True)
class Ridge:
    """A ridge regression of targets [n, e] on features [n, p].

    `weight` is W [p, e] and `intercept` [e], both float64; `strength` is λ's share, inf where the
    prior is left as it is. Errors are mean squared distances: `before` with the prior, `after` on
    the images that it was solved on, `left_out` with each image left out in turn. `left_out_loss`
    is mean 1 - cos between the targets and what is given for each image when it is left out.
    """

    weight: Tensor
    intercept: Tensor
    strength: float
    before: float
    after: float
    left_out: float
    left_out_loss: float


def ridge(
    features: Tensor,
    targets: Tensor,
    prior: Tensor,
    intercept: Tensor,
    strengths: Sequence[float] = STRENGTHS,
) -> Ridge:
    """The ridge regression of least leave-one-out error, towards a prior or towards 0.

    Args:
        features: Z̃ [n, p], n at least 3.
        targets: Y [n, e].
        prior: W₀ [p, e], what there was before.
        intercept: [e], of the prior.
        strengths: λ's to choose from, as shares of the mean eigenvalue of Z̃ᵀZ̃, centred.
    """
    x, y, prior, intercept = (each.double() for each in (features, targets, prior, intercept))
    given = x @ prior + intercept
    before = (y - given).square().sum(1).mean().item()
    least, chosen = before, None
    mean = x.mean(0)
    values, vectors, turned = _principal(x - mean)
    squares, mean_value = turned.square(), values.sum() / x.shape[1]
    for start in (torch.zeros_like(prior), prior) if prior.any() else (prior,):
        residual = y - x @ start
        offset = residual.mean(0)
        residual = residual - offset
        right = turned.T @ residual
        for strength in strengths:
            damped = (values + strength * mean_value).clamp(min=torch.finfo(x.dtype).tiny)
            weight = right / damped[:, None]
            errors = residual - turned @ weight
            leverage = squares @ (1 / damped) + 1 / len(x)
            apart = errors / (1 - leverage).clamp(min=1e-9)[:, None]
            if (left_out := apart.square().sum(1).mean().item()) < least:
                after, loss = errors.square().sum(1).mean().item(), _loss(y - apart, y)
                least, chosen = left_out, (start, offset, weight, strength, after, loss)
    if chosen is None:
        return Ridge(prior, intercept, inf, before, before, before, _loss(given, y))
    start, offset, weight, strength, after, loss = chosen
    change = vectors @ weight
    return Ridge(start + change, offset - mean @ change, strength, before, after, least, loss)


def _principal(centred: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Eigenvalues [k] and eigenvectors V [p, k] of XᵀX for X [n, p], and XV [n, k].

    k is p or n, whichever is less: of fewer rows than columns those of XXᵀ are found, and what they
    leave out is 0.
    """
    if len(centred) >= centred.shape[1]:
        values, vectors = torch.linalg.eigh(centred.T @ centred)
        return values.clamp(min=0), vectors, centred @ vectors
    values, left = torch.linalg.eigh(centred @ centred.T)
    real = values > values[-1] * len(values) * torch.finfo(values.dtype).eps
    values, left = values[real], left[:, real]
    turned = left * values.sqrt()
    return values, centred.T @ (left / values.sqrt()), turned


def _loss(found: Tensor, targets: Tensor) -> float:
    """Mean 1 - cos between rows."""
    return (1 - cosine_similarity(found, targets)).mean().item()


@torch.no_grad()
def align_tower(
    target: Tower,
    model: nn.Module,
    calibration: Calibration,
    features: int | None = None,
    seed: int = 0,
    progress: str | None = None,
) -> tuple[nn.Module, Ridge]:
    """A new model whose vision tower gives what comes closest to the target's embeddings.

    Args:
        target: the vision tower whose embeddings are to be met, the last stage's.
        model: the first stage's, of a family whose vision tower has a class token; it stays as it
            is.
        calibration: images, as both towers take them, at least 3.
        features: random ones; by default four times the hidden size, or as many as there are.
        seed: of these.
        progress: the title of a bar.

    Returns:
        the aligned model, and the regression in standardised features.

    Raises:
        UserError: an embedding is not finite.
        TowerError: the tower can't be aligned.
    """
    pooled = pooled_features(model, calibration, progress)
    wanted = [target.embeddings(each.pixels).float().cpu() for each in calibration.batches()]
    return align_features(model, pooled, torch.cat(wanted), features, seed)


@torch.no_grad()
def pooled_features(
    model: nn.Module, calibration: Calibration, progress: str | None = None
) -> Tensor:
    """What a first stage reads off images, [class token, mean of patches], float32 [n, 2d].

    Raises:
        TowerError: the tower has no class token.
    """
    reader = Tower.of(pooled_only(model))
    return torch.cat(
        [reader.embeddings(each.pixels).float().cpu() for each in calibration.batches(progress)]
    )


def pooled_after(tower: Tower, hidden: Tensor, layers: Collection[int]) -> dict[int, Tensor]:
    """What can be read off one batch after each of these numbers of layers, float32 [b, 2d] each.

    The tower goes up once, as far as the last of them.

    Args:
        tower: of a model that is `pooled_only`.
        hidden: what its embeddings made of the batch, [b, n, d].
        layers: from 1.
    """
    found, sizes = {}, None
    for done in range(1, max(layers) + 1):
        hidden, sizes = tower.root.through(done - 1, hidden, sizes)
        if done in layers:
            found[done] = tower.root.pool(hidden, sizes).float().cpu()
    return found


@torch.no_grad()
def align_features(
    model: nn.Module,
    pooled: Tensor,
    targets: Tensor,
    features: int | None = None,
    seed: int = 0,
) -> tuple[nn.Module, Ridge]:
    """A new model aligned by what its tower reads off images [n, 2d] and the targets [n, e].

    The other arguments are those of `align_tower`.
    """
    if not pooled.isfinite().all() or not targets.isfinite().all():
        raise not_finite("the projection")
    pooled, targets = pooled.double(), targets.double()
    projection = _projection(Tower.of(model).final, pooled, targets.shape[1], features, seed)
    read = projection.features(pooled)
    mean, deviation = read.mean(0), _deviation(read)
    deviation[pooled.shape[1] :] /= RANDOM_SCALE
    start = projection.linear.weight.T * deviation[:, None]
    constant = projection.linear.bias + mean @ projection.linear.weight.T
    solved = ridge((read - mean) / deviation, targets, start, constant)
    weight = solved.weight / deviation[:, None]
    projection.linear.weight.copy_(weight.T)
    projection.linear.bias.copy_(solved.intercept - mean @ weight)
    return align(model, projection.to(model.dtype)), solved


def _projection(
    own: nn.Module, pooled: Tensor, outputs: int, features: int | None, seed: int
) -> AlignedProjection:
    """The projection that a tower has, in the form of an aligned one, float64.

    Random features that it has already stay, unless another number of them is asked for.
    """
    linear, known = own, None
    if isinstance(own, AlignedProjection):
        linear, known = own.linear, own.random
    inputs = pooled.shape[1]
    if features is None:
        features = known.out_features if known else FEATURES_OF_HIDDEN * inputs // 2
    made = AlignedProjection(inputs, features, outputs).double()
    made.linear.weight.zero_()
    made.linear.bias.zero_()
    columns = min(linear.in_features, inputs)
    if known and known.out_features == features:
        made.random.load_state_dict({name: each.cpu() for name, each in known.state_dict().items()})
        columns = linear.in_features
    elif features:
        _draw(made.random, pooled, seed)
    if linear.out_features == outputs:
        made.linear.weight[:, :columns] = linear.weight[:, :columns].cpu().double()
        if linear.bias is not None:
            made.linear.bias.copy_(linear.bias.cpu())
    return made


def _draw(random: nn.Linear, pooled: Tensor, seed: int) -> None:
    """Draw the random features' weights, for standardised inputs."""
    generator = torch.Generator().manual_seed(seed)
    shape = random.weight.shape
    drawn = torch.randn(shape, generator=generator, dtype=torch.float64) * RANDOM_SPREAD
    drawn /= shape[1] ** 0.5 * _deviation(pooled)
    offset = torch.randn(shape[0], generator=generator, dtype=torch.float64) * RANDOM_SPREAD
    random.weight.copy_(drawn)
    random.bias.copy_(offset - drawn @ pooled.mean(0))


def _deviation(values: Tensor) -> Tensor:
    """Standard deviations of columns; 1 where a column doesn't vary."""
    found = values.std(0)
    return found.where(found > 1e-12 * values.abs().amax(0).clamp(min=1e-300), 1.0)
