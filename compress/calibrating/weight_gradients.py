"""Gradients of the contrastive loss with respect to weights, for scores that are made of those.

Stands between corpus and importance, beside `compress.calibrating.importance`, whose gradients are
those of masks. The project's own rules need none of weights; torch-pruning's estimators do.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from compress.calibrating.calibration import Batch, Group
from compress.calibrating.objective import Objective, pulls
from pruning_mechanism import Tower
from pruning_mechanism.tower import Inputs


def summed_gradients(
    tower: Tower,
    batches: Iterable[Batch | Group],
    objective: Objective,
    weights: Sequence[Tensor],
) -> list[Tensor]:
    """The gradient of the loss, summed over all images, one tensor for each of `weights`.

    Args:
        tower: `weights` are some of its, and ask for gradients.
        batches: images with one caption each; of a group's parts one at a time has a graph.
        objective: of a single loss.
        weights: what to derive by.
    """
    sums = [torch.zeros_like(weight) for weight in weights]
    embeddings: Iterable[Tensor]
    for batch in batches:
        if len(batch.parts) == 1:
            held = [_recomputing(tower, batch.parts[0])]
            (pull,) = pulls(objective, held, batch)
            embeddings = held
        else:
            embeddings = (_recomputing(tower, part) for part in batch.parts)
            (pull,) = pulls(objective, _embeddings(tower, batch), batch)
        for own, rows in zip(embeddings, pull, strict=True):
            for total, gradient in zip(sums, torch.autograd.grad(own, weights, rows), strict=True):
                total.add_(gradient)
    return sums


def mean_squared_gradients(
    tower: Tower,
    batches: Iterable[Batch | Group],
    objective: Objective,
    weights: Sequence[Tensor],
) -> list[Tensor]:
    """The squared gradient through one image's embedding, averaged over the images.

    As for masks, an image's gradient is that of its batch's loss by way of this image alone, so
    that a batch's gradients add up to the gradient of its loss. Each image has its own forward and
    backward pass. The arguments are those of `summed_gradients`.
    """
    squares = [torch.zeros_like(weight) for weight in weights]
    images = 0
    for batch in batches:
        (pull,) = pulls(objective, _embeddings(tower, batch), batch)
        for part, rows in zip(batch.parts, pull, strict=True):
            for one, row in zip(_one_by_one(part.inputs(tower.kind)), rows.split(1), strict=True):
                gradients = torch.autograd.grad(tower.embeddings(one), weights, row)
                for square, gradient in zip(squares, gradients, strict=True):
                    square.addcmul_(gradient, gradient)
            images += len(rows)
    return [square / images for square in squares]


@torch.no_grad()
def _embeddings(tower: Tower, batch: Batch | Group) -> list[Tensor]:
    """The embeddings [b, e] of each part, with no graph."""
    return [tower.embeddings(part.inputs(tower.kind)) for part in batch.parts]


def _recomputing(tower: Tower, part: Batch) -> Tensor:
    """The embeddings [b, e], each sublayer computed twice and held once, as in mask_gradients."""
    inputs = part.inputs(tower.kind)
    hidden = tower.embed(inputs)
    for sublayer in tower.sublayers:
        hidden = checkpoint(sublayer, hidden, use_reentrant=False)
    return tower.project(hidden, inputs)


def _one_by_one(inputs: Inputs) -> Iterator[Inputs]:
    """Inputs of a single image or text each, in order."""
    if isinstance(inputs, Tensor):
        yield from inputs.split(1)
        return
    for rows in zip(*(tensor.split(1) for tensor in inputs.values()), strict=True):
        yield dict(zip(inputs, rows, strict=True))


@contextmanager
def borrowed(tower: Tower) -> Iterator[None]:
    """Within the context every weight asks for a gradient and has none; after it all is as before.

    Restored are the weights' `.grad` and `requires_grad`, and the tower's training mode.
    """
    root, training = tower.root, tower.root.training
    before = [(weight, weight.requires_grad, weight.grad) for weight in tower.model.parameters()]
    for weight, _, _ in before:
        weight.requires_grad_(True)
        weight.grad = None
    try:
        with torch.enable_grad():
            yield
    finally:
        root.train(training)
        for weight, asks, gradient in before:
            weight.requires_grad_(asks)
            weight.grad = gradient
