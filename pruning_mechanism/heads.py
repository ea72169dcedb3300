"""Exact changes of basis inside attention heads: the tower computes the same, in other coordinates.

A rule that lets head dimensions shrink first turns each head so that what it wants to drop lies in
the last dimensions of queries and keys, or of values; then surgery cuts these. The rule chooses the
bases; here they are put in.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pruning_mechanism.protocols import Attention
from pruning_mechanism.sublayer import Sublayer


@torch.no_grad()
def rotate(sublayer: Sublayer, query: Tensor, key: Tensor, value: Tensor) -> None:
    """Change the bases of an attention sublayer's heads, in place.

    Each head's queries q become q·query, its keys k·key and its values v·value, as row vectors; the
    output projection takes value⁻¹ in. With query·keyᵀ = I the logits, and so the tower, stay the
    same. Computed in float64 on the CPU: some devices have none.

    Args:
        sublayer: attention of H heads, of query-key size a and value size v.
        query: [H, a, a].
        key: [H, a, a].
        value: [H, v, v], invertible.

    Raises:
        ValueError: the sublayer is an MLP, or a shape doesn't fit its heads.
        torch.linalg.LinAlgError: a `value` is singular.
    """
    attention = _attention(sublayer)
    for projection, basis, name in (
        (attention.q_proj, query, "query"),
        (attention.k_proj, key, "key"),
        (attention.v_proj, value, "value"),
    ):
        size = projection.out_features // attention.num_heads
        if basis.shape != (attention.num_heads, size, size):
            raise ValueError(
                f"{name} must be {[attention.num_heads, size, size]}, found {list(basis.shape)}"
            )
    weight = attention.out_proj.weight  # [d, H * v]: its transpose, head by head, is [v, d]
    per_head = weight.cpu().double().T.unflatten(0, (attention.num_heads, -1))
    turned = torch.linalg.solve(value.to(per_head), per_head)
    _turn_outputs(attention.q_proj, query)
    _turn_outputs(attention.k_proj, key)
    _turn_outputs(attention.v_proj, value)
    weight.copy_(turned.flatten(0, 1).T)


@torch.no_grad()
def shift_keys(sublayer: Sublayer, mean: Tensor) -> None:
    """Subtract a constant [H, a] from every key of an attention sublayer, in place.

    It adds the same number to all logits of a query, which the softmax doesn't see. Keys centred on
    0 lose least when their size shrinks.

    Raises:
        ValueError: the sublayer is an MLP, or the shape doesn't fit its heads.
    """
    attention = _attention(sublayer)
    bias = attention.k_proj.bias
    expected = [attention.num_heads, bias.numel() // attention.num_heads]
    if list(mean.shape) != expected:
        raise ValueError(f"mean must be {expected}, found {list(mean.shape)}")
    bias.copy_(bias.cpu().double() - mean.cpu().double().flatten())


@torch.no_grad()
def move_constant(sublayer: Sublayer) -> None:
    """Let the output projection add what the bias of the values does, in place.

    Attention sums to 1, so a constant in the values is one in what the sublayer adds, and the tower
    stays the same. Left among the values it would go with the heads.

    Raises:
        ValueError: the sublayer is an MLP, or has no heads.
    """
    attention = _attention(sublayer)
    values, output = attention.v_proj, attention.out_proj
    constant = output.weight.cpu().double() @ values.bias.cpu().double()
    output.bias.copy_((output.bias.cpu().double() + constant).to(output.bias.dtype))
    values.bias.zero_()


@contextmanager
def constants_moved(sublayers: Sequence[Sublayer]) -> Iterator[None]:
    """Within the context no head's values have a bias (`move_constant`); after it all is as before.

    What is asked of heads there doesn't depend on how a constant is shared out between the values
    and the output projection, which changes nothing that the tower computes.
    """
    moved = [part for part in sublayers if part.kind == "heads" and part.units]
    places = [layer.bias for part in moved for layer in (part.attention.v_proj, part.output)]
    before = [bias.detach().clone() for bias in places]
    try:
        for part in moved:
            move_constant(part)
        yield
    finally:
        with torch.no_grad():
            for bias, own in zip(places, before, strict=True):
                bias.copy_(own)


def _attention(sublayer: Sublayer) -> Attention:
    if sublayer.kind != "heads" or not sublayer.units:
        raise ValueError(f"layer {sublayer.layer}'s {sublayer.kind} sublayer has no heads")
    return sublayer.attention


def _turn_outputs(projection: nn.Linear, bases: Tensor) -> None:
    """X ↦ x·basis for each head's part of what a projection gives."""
    with_bias = torch.cat([projection.weight, projection.bias[:, None]], dim=1).cpu().double()
    per_head = with_bias.unflatten(0, (len(bases), -1))
    turned = (bases.to(per_head).mT @ per_head).flatten(0, 1)
    projection.weight.copy_(turned[:, :-1])
    projection.bias.copy_(turned[:, -1])
