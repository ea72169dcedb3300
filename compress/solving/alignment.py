"""Alignment: the map from a first stage's own features to the full tower's embedding.

Stands after every rule that leaves out tokens or layers, and may stand after pruning. What the
tower still computes is read off as well as it can be: from [class token, mean of the patch tokens,
each standing for as many patches as its size says], each layer-normalised, and random features of
these, by ridge regression in closed form; or from the class token alone, for which alone the last
layer is then computed. Images only.

    min ‖Y - Z̃W‖² + λ‖W - W₀‖²,    Z̃ = [Z, GELU(ZR + r)], all standardised,

the intercept free. Y [n, e] are the full tower's embeddings, Z [n, r] the features, and W₀ is
either the projection that is replaced or 0. Which of the two, and which λ, is decided by the
leave-one-out error (`pruning_mechanism.ridge`): features are standardised and drawn by all images,
all else is solved without the one left out. The projection stays as it is unless the gain is surely
more than the chance of few images. The random features (Rahimi and Recht, NeurIPS 2008) make the
map a little crooked.
"""

from collections.abc import Collection

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from compress.calibrating.calibration import Calibration
from compress.choices import LEAST_IMAGES, AlignTokens
from compress.errors import UserError, not_finite
from pruning_mechanism import Tower, TowerError, align, layered, pooled_only, tower_of
from pruning_mechanism.families import tower_config
from pruning_mechanism.modeling.aligned_projection import AlignedProjection
from pruning_mechanism.reduction import inputs_read
from pruning_mechanism.ridge import Ridge, deviations, ridge

RANDOM_SCALE = 0.15
"""Standard deviation of the random features, the others' being 1: they are shrunk more."""
RANDOM_SPREAD = 0.5
"""Standard deviation of what GELU gets; the wider, the wigglier are the features."""
FEATURES_OF_HIDDEN = 4
"""Random features for each hidden dimension, if nothing else is said."""


@torch.no_grad()
def pooled_features(
    model: PreTrainedModel,
    calibration: Calibration,
    progress: str | None = None,
    tokens: AlignTokens | None = None,
) -> Tensor:
    """What a projection reads off images, float32 [n, r]: [class token, mean of patches], r = 2d.

    Or the class token alone, r = d, as `tokens` and `pooled_only` say; or the features of an
    encoder that is taken as a whole.

    Raises:
        TowerError: the tower has no class token.
    """
    reader = tower_of(pooled_only(model, tokens))
    return torch.cat(
        [reader.embeddings(batch.pixels).float().cpu() for batch in calibration.batches(progress)]
    )


def pooled_after(tower: Tower, hidden: Tensor, layers: Collection[int]) -> dict[int, Tensor]:
    """What can be read off one batch after each of these numbers of layers, float32 [b, r] each.

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
    model: PreTrainedModel,
    pooled: Tensor,
    targets: Tensor,
    features: int | None = None,
    seed: int = 0,
) -> tuple[PreTrainedModel, Ridge]:
    """A new model whose vision tower gives what comes closest to the full tower's embeddings.

    Where that is not surely better, the projection gives what it gave. It is computed in float64 on
    the CPU.

    Args:
        model: the first stage's, of a family whose vision tower has a class token; it stays as it
            is.
        pooled: what it reads off images, [n, r], from `pooled_features`; n at least
            `LEAST_IMAGES`.
        targets: the full tower's embeddings of these, [n, e].
        features: random ones; by default four times the hidden size, or as many as there are.
        seed: of these.

    Returns:
        the aligned model, and the regression in standardised features.

    Raises:
        UserError: an embedding is not finite, or there are too few.
        TowerError: the tower can't be aligned.
    """
    if len(pooled) < LEAST_IMAGES:
        raise too_few(len(pooled))
    if not pooled.isfinite().all() or not targets.isfinite().all():
        raise not_finite("the projection")
    pooled, targets = pooled.double(), targets.double()
    final = tower_of(model).final
    if features is None:
        features = getattr(final, "random_features", 0) or _usual_features(model, pooled)
    projection = _projection(final, pooled, targets.shape[1], features, seed)
    read = projection.features(pooled)
    mean, random = read.mean(0), deviations(read[:, pooled.shape[1] :]) / RANDOM_SCALE
    deviation = torch.cat([deviations(pooled), random])
    prior = constant = None
    if projection.linear.weight.any():
        prior = projection.linear.weight.T * deviation[:, None]
        constant = projection.linear.bias + mean @ projection.linear.weight.T
    solved = ridge((read - mean) / deviation, targets, prior, constant)
    if not solved.as_it_was:  # else the same but for rounding, which half precision may not hold
        weight = solved.weight / deviation[:, None]
        projection.linear.weight.copy_(weight.T)
        projection.linear.bias.copy_(solved.intercept - mean @ weight)
    return align(model, projection.to(model.dtype)), solved


def unsolved(
    model: PreTrainedModel, features: int | None = None, tokens: AlignTokens | None = None
) -> PreTrainedModel:
    """A model with the projection that an alignment will give it, not solved: it takes as long.

    Args:
        model: a first stage whose layers are known; both share their tensors.
        features: random ones, as `align_features` takes them.
        tokens: that it reads, as `pooled_features` takes them.

    Raises:
        TowerError: the tower can't be aligned.
    """
    tower = tower_of(model)
    if features is None:
        features = getattr(tower.final, "random_features", 0) or _usual_features(model)
    inputs = inputs_read(model, tokens)
    return align(model, AlignedProjection(inputs, features, tower.dimension), share=True)


def too_few(images: int) -> UserError:
    """The error to raise where so many images are to be aligned by."""
    return UserError(
        f"{images} readable calibration images are too few to align by: it takes {LEAST_IMAGES} "
        "at least; the default is 4096"
    )


def notes_of(alignment: Ridge, images: int) -> tuple[str, ...]:
    """What a reader should know of an alignment by so many images, unless it was taken."""
    if not alignment.as_it_was:
        return ()
    return (
        f"the projection stays as it was: with {images} images no alignment is surely better "
        f"(mean squared distance {alignment.tried:.4g} on images left out, "
        f"{alignment.before:.4g} as it was)",
    )


def _usual_features(model: PreTrainedModel, pooled: Tensor | None = None) -> int:
    """How many random features a tower gets that has none.

    What is read off it, [n, r], is needed only where it is an encoder taken as a whole.
    """
    if pooled is None or layered(model):
        return FEATURES_OF_HIDDEN * tower_config(model.config, "vision").hidden_size
    return FEATURES_OF_HIDDEN * pooled.shape[1] // 2


def _projection(
    own: nn.Module, pooled: Tensor, outputs: int, features: int, seed: int
) -> AlignedProjection:
    """The projection that a tower has, in the form of an aligned one, float64.

    Random features that it has already stay, unless another number of them is asked for, or of
    something else. So does what it makes of the class token, if that is read alone from now on.

    Raises:
        TowerError: the tower's embedding comes out of something else.
    """
    linear, known = (own.linear, own.random) if isinstance(own, AlignedProjection) else (own, None)
    if isinstance(own, nn.Identity):
        linear = nn.Linear(pooled.shape[1], pooled.shape[1], bias=False)
        linear.weight.copy_(torch.eye(pooled.shape[1]))
    if not isinstance(linear, nn.Linear):
        raise TowerError(f"a {type(own).__name__} is no projection that can be aligned")
    inputs = pooled.shape[1]
    made = AlignedProjection(inputs, features, outputs).double()
    made.linear.weight.zero_()
    made.linear.bias.zero_()
    columns = min(own.inputs if isinstance(own, AlignedProjection) else linear.in_features, inputs)
    if made.random is not None:
        if known is not None and known.weight.shape == made.random.weight.shape:
            made.random.load_state_dict({k: value.cpu() for k, value in known.state_dict().items()})
            columns = linear.in_features
        else:
            _draw(made.random, pooled, seed)
    if linear.out_features == outputs:
        made.linear.weight[:, :columns] = linear.weight[:, :columns].cpu().double()
        if linear.bias is not None:
            made.linear.bias.copy_(linear.bias.cpu().double())
    return made


def _draw(random: nn.Linear, pooled: Tensor, seed: int) -> None:
    """Draw the random features' weights, for standardised inputs."""
    generator = torch.Generator().manual_seed(seed)
    shape = random.weight.shape
    drawn = torch.randn(shape, generator=generator, dtype=torch.float64) * RANDOM_SPREAD
    drawn /= shape[1] ** 0.5 * deviations(pooled)
    offset = torch.randn(shape[0], generator=generator, dtype=torch.float64) * RANDOM_SPREAD
    random.weight.copy_(drawn)
    random.bias.copy_(offset - drawn @ pooled.mean(0))
