"""Heads in coordinates whose last dimensions matter least, so that sizes can be cut off the end.

Stands before importance and mask. Which dimensions of queries, keys and values a head is written in
is arbitrary: turning queries against keys, or values against the output projection, changes nothing
that the tower computes. CORP (arXiv 2602.05243) picks among the dimensions that a checkpoint has
and compensates for the others; here each head is first turned, exactly, so that its first r
dimensions are the best approximation of rank r that there is, of which every compensated choice
of r dimensions is one. The moments that this takes are summed batch by batch.
"""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from compress.calibrating.calibration import Batch
from compress.calibrating.moments import Moments, precise
from compress.calibrating.token_weights import TokenPlaces, TokenWeights
from compress.errors import not_finite, place_of
from compress.solving.damping import whitening
from pruning_mechanism import Sublayer, Tower
from pruning_mechanism.heads import rotate, shift_keys

FLOOR = 1e-8
"""Share of a head's largest variance, in standardised units, that the others have at least."""


def query_key_basis(queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Bases A, B of a head's queries and keys whose first r dimensions give the best logits.

    With all dimensions the logits stay: A Bᵀ = I. A head that keeps r of them has the logits
    q M kᵀ, M = A_r B_rᵀ of rank r. With C_q = Σ qᵀq and C_k = Σ (k - k̄)ᵀ(k - k̄), it is off by

        Σ_q Σ_k (q (I - M) (k - k̄)ᵀ)² = ‖C_q^½ (I - M) C_k^½‖²,

    over all pairs of a query and a key of the calibration images or texts, the two drawn
    independently of each other: which key a causal mask hides from a query isn't asked. (Keys are
    centred within each image, because what all keys of an image share adds the same to all logits
    of a query, which the softmax doesn't see.) By Eckart and Young no M of
    rank r is off by less than the one with C_q^½ M C_k^½ = U_r S_r V_rᵀ, the truncated singular
    value decomposition of C_q^½ C_k^½; so A = C_q^-½ U S^½ and B = C_k^-½ V S^½. The error is the
    sum of the squares of the singular values left out.

    Args:
        queries: C_q [..., h, h]. It and C_k are damped first: in the sense of the damped moments
            the choice is the best.
        keys: C_k [..., h, h].

    Returns:
        A and B [..., h, h], and the singular values S [..., h], falling; all float64.
    """
    (left, left_inverse), (right, right_inverse) = _roots(queries), _roots(keys)
    u, values, vh = torch.linalg.svd(left @ right.mT)
    scale = values.sqrt()[..., None, :]
    return left_inverse @ u * scale, right_inverse @ vh.mT * scale, values


def value_basis(moments: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """A basis of a head's values whose first r dimensions give the best output of the head.

    With C = Σ (c - c̄)ᵀ(c - c̄) of the head's context vectors c and W its rows of the output
    projection, a head of value size r adds c Z to the residual stream, Z of rank r, and its bias
    makes up for the mean. It is off by ‖C^½ (W - Z)‖², least, by Eckart and Young, for
    C^½ Z = U_r S_r V_rᵀ of C^½ W = U S Vᵀ. That is the first r dimensions in the basis C^-½ U,
    whatever the lengths of its columns: they are 1 here. Each head is taken alone; what heads can
    do for one another is left to repair.

    Args:
        moments: C [..., v, v], damped as in `query_key_basis`.
        weight: W [..., v, d], v ≤ d.

    Returns:
        The basis [..., v, v] and the singular values S [..., v], falling; float64.

    Raises:
        ValueError: the values are more than the outputs.
    """
    size, outputs = weight.shape[-2:]
    if size > outputs:
        raise ValueError(f"a head's value size {size} is more than its {outputs} outputs")
    root, inverse = _roots(moments)
    u, values, _ = torch.linalg.svd(root @ weight.double(), full_matrices=False)
    basis = inverse @ u
    return basis / basis.norm(dim=-2, keepdim=True), values


def _roots(moments: Tensor) -> tuple[Tensor, Tensor]:
    """R with RᵀR = C [..., h, h], and its inverse; dimensions that are dead have a little life."""
    moments = moments.double()
    scales = moments.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()
    scales = scales.where(scales > 0, 1.0)
    inverse = whitening(moments / scales[..., :, None] / scales[..., None, :], FLOOR)
    inverse = inverse / scales[..., :, None]
    return torch.linalg.inv(inverse), inverse


@dataclass(frozen=True)
class Rotated:
    """A tower whose heads have their most important dimensions first; the same function.

    `query_key_values` and `value_values` [L, H, h] are the singular values, falling: what a head
    loses if its sizes shrink. `value_bases` [L, H, h, h] are the bases that its values are in.
    """

    tower: Tower
    query_key_values: Tensor
    value_values: Tensor
    value_bases: Tensor


@torch.no_grad()
def rotate_tower(
    tower: Tower, batches: Iterable[Batch], weights: Sequence[TokenWeights] | None = None
) -> Rotated:
    """Turn every head of a dense tower; `tower` itself stays as it is.

    Args:
        tower: the dense one.
        batches: calibration images or texts.
        weights: of the tokens after each sublayer: how much a query and a context vector count.

    Raises:
        UserError: queries, keys or values are not finite.
    """
    parts = tower.sublayers
    of_tokens = weights or [TokenWeights()] * len(parts)
    of_heads = [HeadMoments(part) for part in parts if part.kind == "heads"]
    for batch in batches:
        inputs = batch.inputs(tower.kind)
        hidden = tower.embed(inputs)
        places = TokenPlaces.of(tower, inputs, hidden)
        for part, token_weights in zip(parts, of_tokens, strict=True):
            features = part.features(hidden)
            if part.kind == "heads":
                of_heads[part.layer].add_batch(
                    hidden, features, token_weights.spread(places), places.valid
                )
            hidden = hidden + part.output(features)
    turned = replace(tower, model=copy.deepcopy(tower.model))
    found = []
    for part, moments in zip(turned.sublayers[::2], of_heads, strict=True):
        moments.check_finite()
        query, key, of_logits = query_key_basis(moments.queries, moments.keys)
        rows = part.output.weight.cpu().double().T.unflatten(0, (part.units, -1))
        value, of_outputs = value_basis(moments.contexts, rows)
        shift_keys(part, moments.mean_key)  # not seen, but small logits round better
        rotate(part, query, key, value)
        found.append((of_logits, of_outputs, value))
    return Rotated(turned, *map(torch.stack, zip(*found, strict=True)))


class HeadMoments:
    """Second moments, in float64, of what the heads of an attention sublayer work with.

    `queries` Σ qᵀq, `keys` Σ (k - k̄)ᵀ(k - k̄), k̄ the mean of the keys of the same image or text and
    head, and `contexts` Σ (c - c̄)ᵀ(c - c̄), c̄ the mean of all, are [H, h, h]; `mean_key` is [H, h].
    """

    def __init__(self, sublayer: Sublayer):
        heads, size = sublayer.units, sublayer.unit_width
        self._sublayer = sublayer
        self.queries = torch.zeros(heads, size, size, dtype=torch.float64)
        self.keys = torch.zeros_like(self.queries)
        self._squares = torch.zeros_like(self.queries)
        self._keys = torch.zeros(heads, size, dtype=torch.float64)
        self._contexts = torch.zeros_like(self._keys)
        self._tokens = self._weight = 0.0

    def add_batch(self, hidden: Tensor, contexts: Tensor, weights: Tensor, valid: Tensor) -> None:
        """Add a batch's tokens.

        Args:
            hidden: what enters the sublayer, [b, n, d].
            contexts: what its output projection gets, [b, n, H * h].
            weights: of the queries and contexts of each token, [b, n].
            valid: bool[b, n], whose keys count; at least one of each image or text.
        """
        attention, normed = self._sublayer.attention, self._sublayer.norm(hidden)
        queries, keys, contexts = (
            precise(vectors).unflatten(-1, (self._sublayer.units, -1))
            for vectors in (attention.q_proj(normed), attention.k_proj(normed), contexts)
        )
        scale, counted = weights.to(queries), valid.to(queries)
        sums = torch.einsum("bnhi,bn->bhi", keys, counted)
        means = sums / counted.sum(1)[:, None, None]
        self.queries += _second(queries, scale)
        self.keys += _second(keys - means[:, None], counted)
        self._squares += _second(contexts, scale)
        self._keys += sums.sum(0).cpu()
        self._contexts += torch.einsum("bnhi,bn->hi", contexts, scale).cpu()
        self._tokens += counted.sum().item()
        self._weight += scale.sum().item()

    @property
    def contexts(self) -> Tensor:
        """Σ (c - c̄)ᵀ(c - c̄) [H, h, h]."""
        total = self._contexts
        return self._squares - total[:, :, None] * total[:, None, :] / self._weight

    @property
    def mean_key(self) -> Tensor:
        """The mean key of each head [H, h]."""
        return self._keys / self._tokens

    def check_finite(self) -> None:
        """Raise `UserError` unless all moments are finite."""
        for moment in (self.queries, self.keys, self._squares):
            if not moment.isfinite().all():
                raise not_finite(place_of(self._sublayer.layer, "heads"))


def _second(vectors: Tensor, weights: Tensor) -> Tensor:
    """Σ weight · xᵀx [H, h, h] of vectors [b, n, H, h] with weights [b, n]."""
    rows = (vectors * weights.sqrt()[..., None, None]).flatten(0, 1).transpose(0, 1)
    return (rows.mT @ rows).cpu()


def turn(moments: Moments, bases: Tensor) -> Moments:
    """The moments of an attention sublayer once its values are in other bases [H, h, h].

    Its features X become X·B, B the block diagonal matrix of the bases; the targets stay.
    """
    basis = torch.block_diag(*bases, torch.ones(1, 1)).to(moments.xx)
    turned = Moments(len(basis) - 1, moments.xt.shape[1])
    turned.xx, turned.xt = basis.T @ moments.xx @ basis, basis.T @ moments.xt
    turned.tt, turned.precision = moments.tt, moments.precision
    return turned
