"""Objectives: what a tower is to keep, as losses of its embeddings.

Stands between corpus and importance: `compress.calibrating.importance` backpropagates each loss
that an objective gives and records what reaches the masks. `Contrastive` asks that images still
find their captions; `Embedding` asks, with images alone (texts, for a text tower), that their
embeddings stay where they are.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize
from transformers import PreTrainedModel

from compress.calibrating.calibration import Batch, Group
from compress.choices import ObjectiveName
from compress.errors import UserError
from pruning_mechanism import TowerKind, image_embeddings, text_embeddings

OTHER_SIDE: Mapping[TowerKind, TowerKind] = {"vision": "text", "text": "vision"}
"""For each tower the other one."""
PROJECTIONS = 2
"""Projections an image. On a 12-layer tower trained on photographs a neuron's score had a relative
variance of (2.25 / projections + 0.56) / images, and a further projection took 0.4 of the time of
the first: for the same time, two or three give the steadiest scores."""


class Objective(Protocol):
    """A function from embeddings [b, e], not normalised, and their batch to scalar losses.

    Image i's share of a loss is backpropagated to image i's own mask variables g; what a rule then
    needs is the sum over losses and images of g gᵀ, or of |g|.
    """

    def __call__(self, embeddings: Tensor, batch: Batch | Group) -> list[Tensor]:
        """The losses of a batch, or of a group of batches, each summed over its images."""
        ...


def pulls(
    objective: Objective, embeddings: Sequence[Tensor], batch: Batch | Group
) -> list[tuple[Tensor, ...]]:
    """The gradients of each loss with respect to the embeddings, in parts [b, e] as they are.

    What an image's own loss is depends on all images of its group; how it then reaches the masks or
    weights, on that image alone.
    """
    with torch.enable_grad():
        every = torch.cat([part.detach() for part in embeddings]).requires_grad_()
        losses = objective(every, batch)
        sizes = [len(part) for part in embeddings]
        return [
            torch.autograd.grad(loss, every, retain_graph=True)[0].split(sizes) for loss in losses
        ]


def objective_named(
    name: ObjectiveName,
    texts: PreTrainedModel,
    projections: int = PROJECTIONS,
    seed: int = 0,
    tower: TowerKind = "vision",
) -> Objective:
    """The objective of that name.

    Args:
        name: contrastive or embedding.
        texts: the CLIP whose other tower gives the fixed side; embedding has no use for it.
        projections: an image, for embedding.
        seed: of the projections.
        tower: which one is scored.

    Raises:
        UserError: there is no such objective, or no such number of projections.
    """
    if name == "contrastive":
        return Contrastive(texts, tower)
    if name == "embedding":
        return Embedding(projections, seed)
    raise UserError(f"the objective must be contrastive or embedding, found {name!r}")


def contrastive_loss(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """CLIP's symmetric contrastive loss of matching rows [b, e], summed over the batch."""
    logits = scale * normalize(images.float(), dim=-1) @ normalize(texts.float(), dim=-1).T
    labels = torch.arange(len(images), device=logits.device)
    to_text = cross_entropy(logits, labels, reduction="sum")
    return (to_text + cross_entropy(logits.T, labels, reduction="sum")) / 2


class Contrastive:
    """CLIP's own loss of a group's images and captions: one loss, the empirical Fisher's.

    Each image is told from the others of its group, so scores depend on the size of groups,
    `compress.calibrating.calibration.CONTRAST`, and not on how many images are computed at once.
    The side that isn't scored stays as it is. Every family is scored by this loss, whatever it was
    trained with.
    """

    def __init__(self, texts: PreTrainedModel, tower: TowerKind = "vision"):
        """Score by `tower`'s embeddings, the other tower of `texts` giving the fixed side."""
        self._model = texts
        self._fixed = OTHER_SIDE[tower]

    def __call__(self, embeddings: Tensor, batch: Batch | Group) -> list[Tensor]:
        """The contrastive loss.

        Raises:
            UserError: the batch has no captions, or the other tower's answer is not finite.
        """
        if not all(part.tokens for part in batch.parts):
            raise UserError(
                "the contrastive objective needs a caption for each image and a tokenizer: "
                "name a corpus and a CLIP that have them, or use the embedding objective"
            )
        with torch.no_grad():
            fixed = torch.cat([self._embed(part) for part in batch.parts])
            scale = self._model.get_parameter("logit_scale").exp().float()
        if not (fixed.isfinite().all() and scale.isfinite()):
            raise UserError(
                f"the {self._fixed} tower's embeddings or its logit scale are not finite: is the "
                "checkpoint damaged? the embedding objective does without them"
            )
        return [contrastive_loss(embeddings, fixed, scale)]

    def _embed(self, part: Batch) -> Tensor:
        """The fixed side's embeddings [b, e]."""
        if self._fixed == "text":
            return text_embeddings(self._model, part.tokens)
        return image_embeddings(self._model, part.pixels)


class Embedding:
    """The distance of the pruned embedding to the dense one, by random projections.

    With y(m) an image's embedding under its mask m, z = y / ‖y‖, and J = ∂z/∂m at m = 1, where
    nothing is pruned, the loss 1 - cos(y(m), y(1)) = 1 - ⟨z(m), z(1)⟩ is 0 and so is its gradient.
    Its Hessian is the Gauss–Newton matrix

        H = Jᵀ J = (∂y/∂m)ᵀ (I - z zᵀ) (∂y/∂m) / ‖y‖²,

    exactly and not by leaving a term out: ⟨z, z⟩ = 1 differentiated twice says that
    ⟨∂²z, z⟩ = -⟨∂z, ∂z⟩. So pruning the units s costs ½ sᵀHs to second order. For random v with
    E[v vᵀ] = I the gradient g = Jᵀv of the projection ⟨v, z⟩ has E[g gᵀ] = H; each of an image's k
    losses here is ⟨v, z⟩ with v scaled so that the sum of g gᵀ over the k is what estimates H.

    An image's projections are orthogonal, and images in a row share out an orthonormal basis, drawn
    anew (Haar) when it is used up: unbiased, steadier than independent draws, and exact where there
    are as many projections as the embedding has dimensions. Each costs one backward pass.
    """

    def __init__(self, projections: int = PROJECTIONS, seed: int = 0):
        if projections < 1:
            raise UserError(f"an image needs at least 1 projection, found {projections}")
        self._projections, self._seed = projections, seed
        self._directions: Iterator[Tensor] | None = None

    def __call__(self, embeddings: Tensor, batch: Batch | Group) -> list[Tensor]:
        """Projections of the normalised embeddings, one loss for each.

        Raises:
            UserError: there are more projections than embedding dimensions.
        """
        dimensions = embeddings.shape[1]
        if self._projections > dimensions:
            raise UserError(
                f"{self._projections} projections of an embedding with {dimensions} dimensions: "
                f"{dimensions} are exact already"
            )
        if self._directions is None:
            self._directions = directions(dimensions, self._projections, self._seed)
        drawn = torch.stack([next(self._directions) for _ in embeddings]).float()  # [b, k, e]
        normalised = normalize(embeddings.float(), dim=-1)
        return list(torch.einsum("bke,be->k", drawn.to(normalised.device), normalised))


def directions(dimensions: int, projections: int, seed: int) -> Iterator[Tensor]:
    """Endless v's for one image after another, float64 [k, e], with E[Σ v vᵀ] over the k = I."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        gaussian = torch.randn(dimensions, dimensions, generator=generator, dtype=torch.float64)
        basis, upper = torch.linalg.qr(gaussian)
        basis = (basis * upper.diagonal().sign()).T  # uniform over all orthonormal bases
        whole = dimensions // projections * projections
        yield from (dimensions / projections) ** 0.5 * basis[:whole].unflatten(0, (-1, projections))
