"""How much each token of a residual stream matters to the tower's final embedding.

Stands between corpus and repair. In a CLIP most tokens are patches or words whose errors the layers
above all but ignore, and one, the pooled token, becomes the embedding; least squares that counts
all tokens alike spends itself on the wrong ones. A token's weight is the root mean square gradient
of the embedding with respect to it. (The mean square would make the error's second-order effect on
the embedding the thing that is minimised, but leaves so few tokens to solve from that it does no
better; docs/method.md has the figures.) What comes after the end of a text weighs nothing.
"""

from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor
from torch.nn.functional import normalize

from compress.calibrating.calibration import Calibration
from compress.calibrating.finite import first_break
from compress.errors import not_finite
from pruning_mechanism import Tower
from pruning_mechanism.tower import Inputs


@dataclass(frozen=True)
class TokenPlaces:
    """Which tokens of a batch can reach the embeddings, and which these are read off.

    Both bool[b, n]; `pooled` is None where a head attends to all tokens.
    """

    valid: Tensor
    pooled: Tensor | None

    @classmethod
    def of(cls, tower: Tower, inputs: Inputs, hidden: Tensor) -> "TokenPlaces":
        """The places in a residual stream `hidden` [b, n, d] of those inputs."""
        valid = tower.valid(inputs)
        if valid is None:
            valid = torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
        return cls(valid, tower.pooled(inputs, hidden.shape[1]))


@dataclass(frozen=True)
class TokenWeights:
    """Weights of the tokens after a sublayer, of mean 1: the pooled one's, and all others'."""

    pooled: float = 1.0
    others: float = 1.0

    def spread(self, places: TokenPlaces) -> Tensor:
        """The weight of each token of a batch [b, n]; 0 where it can't reach the embedding."""
        weights = places.valid * self.others
        if places.pooled is None:
            return weights
        return weights.masked_fill(places.pooled, self.pooled)


def token_weights(tower: Tower, calibration: Calibration, seed: int = 0) -> list[TokenWeights]:
    """Weights of the tokens after each sublayer, in the order in which they run.

    Where a head attends to all tokens, all weigh the same.

    Args:
        tower: the dense tower.
        calibration: images or texts that the gradients are averaged over.
        seed: of the random direction in which each input's embedding is differentiated.

    Raises:
        UserError: activations are not finite.
    """
    if tower.parts.pooling == "attention":
        return [TokenWeights() for _ in tower.sublayers]
    generator = torch.Generator().manual_seed(seed)
    sums = reduce(
        torch.add,
        (_squares(tower, batch.inputs(tower.kind), generator) for batch in calibration.batches()),
    )
    counts, squares = sums[-1], sums[:-1]
    return [_weights(row, counts) for row in squares]


def _weights(squares: Tensor, counts: Tensor) -> TokenWeights:
    """From the sums of squared gradients over the pooled and over all other tokens [2]."""
    roots = (squares / counts.clamp(min=1)).sqrt()
    mean = (roots * counts).sum() / counts.sum()
    if not mean > 0:  # nothing reaches the embedding: no token matters more than another
        return TokenWeights()
    return TokenWeights(*(roots / mean).tolist())


def _squares(tower: Tower, inputs: Inputs, generator: torch.Generator) -> Tensor:
    """Sums over the pooled and over all other tokens of a batch, [sublayers + 1, 2].

    A row for each sublayer, bottom to top, holds the squared gradients at the tokens after it; the
    last counts the tokens. Up the tower with no graph, then down with that of one sublayer at a
    time.
    """
    parts = tower.sublayers
    with torch.no_grad():
        streams = [tower.embed(inputs)]
        places = TokenPlaces.of(tower, inputs, streams[0])
        for part in parts:
            streams.append(part(streams[-1]))
    pooled = places.valid if places.pooled is None else places.pooled
    kinds = torch.stack([pooled, places.valid & ~pooled]).flatten(1)  # [2, b * n]

    def sums(gradient: Tensor) -> Tensor:
        return kinds.float() @ gradient.float().square().sum(2).flatten()

    with torch.enable_grad():
        top = streams.pop().requires_grad_()
        embeddings = normalize(tower.project(top, inputs), dim=-1)
        if not embeddings.isfinite().all():
            raise not_finite(first_break(tower, tower.embed(inputs)))
        # drawn one by one: an image's direction doesn't depend on how many are drawn at once
        drawn = [torch.randn(len(embedding), generator=generator) for embedding in embeddings]
        direction = torch.stack(drawn).to(embeddings)
        gradient = torch.autograd.grad((embeddings * direction).sum(), top)[0]
        squares = [sums(gradient)]
        for part in reversed(parts[1:]):
            stream = streams.pop().requires_grad_()
            gradient = torch.autograd.grad(part(stream), stream, gradient)[0]
            squares.append(sums(gradient))
    return torch.stack([*squares[::-1], kinds.sum(1).float()]).cpu()
