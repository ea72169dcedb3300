"""Importance: a score for each head and neuron, and the gradients that scores are made of.

Stands between corpus and mask. A mask variable of 1 is thought in front of every head and neuron,
for each image its own; the gradient of a loss with respect to it is the inner product of what the
output projection gets from that unit and the gradient there, summed over the image's tokens. One
backward pass gives it for all units and all images of a batch. For a text tower, read text for
image.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from compress.calibrating.calibration import Batch, Group
from compress.calibrating.finite import first_break
from compress.calibrating.objective import Objective, pulls
from compress.errors import UserError, not_finite
from pruning_mechanism import Sublayer, Tower
from pruning_mechanism.tower import Inputs


@dataclass(frozen=True, eq=False)
class Importance:
    """Scores of heads `[L, H]` and neurons `[L, F]`, larger = keep.

    `head_block` [L, H, H] and `neuron_block` [L, F, F] are the layers' full Fisher blocks, of which
    the scores are the diagonals, where a rule has them.
    """

    heads: Tensor
    neurons: Tensor
    head_block: Tensor | None = None
    neuron_block: Tensor | None = None


@dataclass(frozen=True)
class MaskGradients:
    """A loss's gradients by each image's own mask variables: heads [b, L, H], neurons [b, L, F]."""

    heads: Tensor
    neurons: Tensor


def mask_gradients(
    tower: Tower, batches: Iterable[Batch | Group], objective: Objective
) -> Iterator[MaskGradients]:
    """Per-image mask gradients of an objective: one `MaskGradients` for each loss of each batch.

    Of a group there is one for each loss of each of its parts.

    Args:
        tower: the one to score; its weights get no gradients.
        batches: what the tower takes, and what the objective asks for.
        objective: the losses of a batch's embeddings.

    Raises:
        UserError: activations or gradients are not finite; the sublayer where it starts is named.
    """
    with _frozen(tower):
        for batch in batches:
            yield from _of_batch(tower, batch, objective)


def _of_batch(tower: Tower, batch: Batch | Group, objective: Objective) -> Iterator[MaskGradients]:
    """Up the tower with no graph; then, part by part, down with that of one sublayer at a time.

    Held are the residual streams between the sublayers, of one part: those of a batch in several
    parts are computed a second time once its losses are known.
    """
    streams, embeddings = [], []
    for part in batch.parts:
        inputs = part.inputs(tower.kind)
        streams = _streams(tower, inputs)
        with torch.no_grad():
            embeddings.append(tower.project(streams[-1], inputs))
        if not embeddings[-1].isfinite().all():
            raise not_finite(first_break(tower, streams[0]))
    of_losses = pulls(objective, embeddings, batch)
    for index, part in enumerate(batch.parts):
        inputs = part.inputs(tower.kind)
        if len(batch.parts) > 1:
            streams = _streams(tower, inputs)
        yield from _of_part(tower, inputs, streams, [gradients[index] for gradients in of_losses])


@torch.no_grad()
def _streams(tower: Tower, inputs: Inputs) -> list[Tensor]:
    """What enters each sublayer, bottom to top, and what leaves the last, [b, n, d] each."""
    streams = [tower.embed(inputs)]
    for part in tower.sublayers:
        streams.append(part(streams[-1]))
    return streams


def _of_part(
    tower: Tower, inputs: Inputs, streams: list[Tensor], at_embeddings: Sequence[Tensor]
) -> list[MaskGradients]:
    """From each loss's gradients at the embeddings [b, e] down; `streams` are used up.

    Each sublayer is computed a second time, once for all losses, so that a further loss costs no
    more than its backward pass.
    """
    parts = tower.sublayers
    with torch.enable_grad():
        top = streams.pop().requires_grad_()
        embeddings = tower.project(top, inputs)
        found = [_empty_gradients(tower, len(top)) for _ in at_embeddings]
        gradients = [
            torch.autograd.grad(embeddings, top, pull, retain_graph=True)[0]
            for pull in at_embeddings
        ]
        del embeddings, top
        for part in reversed(parts):
            below = _through(part, streams.pop().requires_grad_(), gradients)
            for index, (of_units, gradient) in enumerate(below):
                getattr(found[index], part.kind)[:, part.layer] = of_units
                gradients[index] = gradient
    for loss_gradients in found:
        _check_finite(parts, loss_gradients)
    return found


def _through(
    sublayer: Sublayer, stream: Tensor, gradients: Sequence[Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Take gradients at the stream after a sublayer down through it.

    Args:
        sublayer: of u units.
        stream: what enters it, [b, n, d], a leaf that asks for gradients.
        gradients: one [b, n, d] for each loss.

    Yields:
        For each loss the gradients of the units' mask variables [b, u], and of `stream`.
    """
    seen: list[Tensor] = []
    with sublayer.watch(seen.append):
        after = sublayer(stream)
    (features,) = seen
    for gradient in gradients:
        at_features, at_stream = torch.autograd.grad(
            after, (features, stream), gradient, retain_graph=True
        )
        exact = torch.promote_types(features.dtype, torch.float32)
        products = (features.detach() * at_features).sum(1, dtype=exact)
        yield products.unflatten(1, (-1, sublayer.unit_width)).sum(2), at_stream


def _empty_gradients(tower: Tower, images: int) -> MaskGradients:
    config, device = tower.config, tower.model.device
    layers = config.num_hidden_layers
    exact = torch.promote_types(tower.model.dtype, torch.float32)
    return MaskGradients(
        torch.empty(images, layers, config.num_attention_heads, device=device, dtype=exact),
        torch.empty(images, layers, config.intermediate_size, device=device, dtype=exact),
    )


def _check_finite(parts: Sequence[Sublayer], gradients: MaskGradients) -> None:
    """Raise `UserError` at the topmost sublayer whose gradients are not finite."""
    if gradients.heads.isfinite().all() and gradients.neurons.isfinite().all():
        return
    for part in reversed(parts):
        finite = getattr(gradients, part.kind)[:, part.layer].isfinite().all(1)
        if not finite.all():
            raise UserError(
                f"the mask gradients of the {part.kind} of layer {part.layer} are not finite for "
                f"{int((~finite).sum())} of {len(finite)} images: is the checkpoint damaged, or "
                "half precision too narrow for it?"
            )


@contextmanager
def _frozen(tower: Tower) -> Iterator[None]:
    """Within the context no weight asks for a gradient, which halves the backward pass."""
    trainable = [parameter for parameter in tower.model.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
