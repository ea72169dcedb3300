"""The last layer for the class token alone, where nothing else is read; part of every checkpoint.

After the last layer an embedding is read off one token, but a layer computes all of them. Their
queries, attention outputs and MLPs are of no use, and of their keys and values only sums are:

    qₕ · (Wₖₕ xⱼ + bₖₕ) = (Wₖₕᵀ qₕ) · xⱼ + qₕ · bₖₕ,    Σⱼ pⱼ (Wᵥₕ xⱼ + bᵥₕ) = Wᵥₕ (Σⱼ pⱼ xⱼ) + bᵥₕ

with one query qₕ for each head h, tokens xⱼ and attention p, which sums to 1. So no token is
projected but the class token: that layer's work falls from one that grows with tokens × hidden² to
heads × tokens × hidden, and the result is the same but for rounding. Attention to one token alone
is that of CaiT's class-attention layers (arXiv 2103.17239, section 3), there a design of its own;
the order of the products is the one that multi-head latent attention absorbs projections by
(arXiv 2405.04434, section 2.1.2).
"""

import torch
from torch import Tensor, nn

from .pruned_layers import FamilyModule, is_watched


def class_token_suffices(layer: FamilyModule) -> bool:
    """Whether a layer may be computed for the class token alone without anybody noticing.

    Not where hooks or another forward method see what one of its modules gives, where adapters or
    quantised weights stand in the place of its projections, or where attention drops weights.
    """
    attention = layer.self_attn
    projections = (attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj)
    return (
        all(type(projection) is nn.Linear for projection in projections)
        and not (attention.training and attention.dropout)
        and not is_watched(*layer.modules())
    )


def class_token_after(layer: FamilyModule, hidden: Tensor, bias: Tensor | None = None) -> Tensor:
    """The class token [b, d] after a layer that is given the stream `hidden` [b, n, d].

    Args:
        layer: of which `class_token_suffices`.
        hidden: token 0 is the class token.
        bias: what is added to the logits, [b, 1, 1, n].
    """
    return class_token_fed(layer, class_token_attended(layer, hidden, bias))


def class_token_attended(layer: FamilyModule, hidden: Tensor, bias: Tensor | None = None) -> Tensor:
    """The class token [b, d] after the layer's attention alone; arguments as above."""
    own: Tensor = hidden[:, 0] + _attended(layer.self_attn, layer.layer_norm1(hidden), bias)
    return own


def class_token_fed(layer: FamilyModule, own: Tensor) -> Tensor:
    """The class token [b, d] after the layer's MLP, given as it was before it."""
    after: Tensor = own + layer.mlp(layer.layer_norm2(own))
    return after


def _attended(attention: FamilyModule, normed: Tensor, bias: Tensor | None) -> Tensor:
    """What attention adds to the class token, [b, d], of the tokens that it is given [b, n, d]."""
    heads, hidden = attention.num_heads, normed.shape[-1]
    if not heads:
        alone: Tensor = attention.out_proj.bias
        return alone.expand(len(normed), -1)
    keys, values = (
        projection.weight.reshape(heads, -1, hidden)
        for projection in (attention.k_proj, attention.v_proj)
    )
    # -1 for the batch: a graph traced on one image takes a number for a fixed one
    width = attention.q_proj.out_features // heads
    queries = (attention.q_proj(normed[:, 0]) * attention.scale).reshape(-1, heads, width)
    logits = torch.einsum("bhk,hkd->bhd", queries, keys) @ normed.transpose(1, 2)
    if attention.k_proj.bias is not None:  # the same for all tokens: kept for its gradient's sake
        own = (queries * attention.k_proj.bias.unflatten(0, (heads, -1))).sum(-1)
        logits = logits + own[..., None]
    if bias is not None:
        logits = logits + bias[:, 0]
    shares = logits.softmax(-1, dtype=torch.float32).to(normed.dtype)
    context = torch.einsum("bhd,hkd->bhk", shares @ normed, values)
    context = context.reshape(-1, attention.v_proj.out_features)
    if attention.v_proj.bias is not None:
        context = context + attention.v_proj.bias
    output: Tensor = attention.out_proj(context)
    return output
