"""Importance: a score for each head and neuron, and the gradients that scores are made of.

Stands between corpus and mask. A mask variable of 1 is thought in front of every head and neuron,
for each image its own; the gradient of the loss with respect to it is the inner product of what
the output projection gets from that unit and the gradient there, summed over the image's tokens.
One backward pass gives it for all units and all images of a batch.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from torch.utils.checkpoint import checkpoint

from compress.calibration import Batch
from pruning_mechanism import embed, project, sublayers
from pruning_mechanism.tower import text_embeddings, vision_config


@dataclass(frozen=True)
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
    """Gradients with respect to each image's own mask: heads `[b, L, H]`, neurons `[b, L, F]`."""

    heads: Tensor
    neurons: Tensor


def contrastive_loss(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """CLIP's symmetric contrastive loss of matching rows [b, e], summed over the batch."""
    logits = scale * normalize(images.float(), dim=-1) @ normalize(texts.float(), dim=-1).T
    labels = torch.arange(len(images), device=logits.device)
    to_text = cross_entropy(logits, labels, reduction="sum")
    return (to_text + cross_entropy(logits.T, labels, reduction="sum")) / 2


def mask_gradients(
    model: nn.Module, batches: Iterable[Batch], texts: nn.Module | None = None
) -> Iterator[MaskGradients]:
    """Per-image mask gradients of the contrastive loss, one `MaskGradients` a batch.

    Args:
        model: the tower to score; its weights get no gradients.
        batches: pixels with one caption each, tokenised.
        texts: the model whose text tower embeds the captions, if `model` has none.
    """
    texts = texts or model
    with _frozen(model):
        for batch in batches:
            with torch.no_grad():
                captions = text_embeddings(texts, batch.tokens)
                hidden = embed(model, batch.pixels)
            recorder = _Recorder(model, len(batch.pixels))
            with recorder, torch.enable_grad():
                hidden.requires_grad_()
                for sublayer in sublayers(model):  # computed twice, held once: half the memory
                    hidden = checkpoint(sublayer, hidden, use_reentrant=False)
                embeddings = project(model, hidden)
                loss = contrastive_loss(embeddings, captions, texts.logit_scale.exp().float())
                loss.backward()
            yield recorder.gradients


class _Recorder:
    """Collects the mask gradients of one forward and backward pass made within its context."""

    def __init__(self, model: nn.Module, images: int):
        vision, device = vision_config(model.config), model.device
        layers = vision.num_hidden_layers
        self.gradients = MaskGradients(
            torch.zeros(images, layers, vision.num_attention_heads, device=device),
            torch.zeros(images, layers, vision.intermediate_size, device=device),
        )
        self._sublayers = sublayers(model)
        self._stack = ExitStack()

    def __enter__(self) -> "_Recorder":
        for sublayer in self._sublayers:
            into = getattr(self.gradients, sublayer.kind)[:, sublayer.layer]
            self._stack.enter_context(sublayer.watch(_record(into, sublayer.unit_width)))
        return self

    def __exit__(self, *_) -> None:
        self._stack.close()


def _record(into: Tensor, unit_width: int):
    """A hook that lets the gradient of features [b, n, u * unit_width] fill `into` [b, u]."""

    def on_forward(features: Tensor) -> None:
        values = features.detach()

        def on_backward(gradient: Tensor) -> None:
            products = (values * gradient).sum(1, dtype=torch.float32)
            into.copy_(products.unflatten(1, (-1, unit_width)).sum(2))

        features.register_hook(on_backward)

    return on_forward


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Within the context no weight asks for a gradient, which halves the backward pass."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
