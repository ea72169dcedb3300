"""Curves of head dimensions: what smaller queries and keys, or values, do to the final embedding.

Stands between turned heads (`compress.solving.head_dims`) and allocation. A point is measured as
those of heads and neurons are: all heads of one layer of the otherwise dense tower keep the first
dimensions of their bases, and the output projection compensates.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from compress.allocation.allocate import Curve
from compress.allocation.curves import Sweep, compensated
from compress.budgets.structures import dim_sizes
from compress.calibrating.calibration import Calibration
from compress.calibrating.moments import Moments
from compress.calibrating.token_weights import TokenWeights
from pruning_mechanism import Sublayer, Tower


@torch.no_grad()
def measure_dim_curves(
    tower: Tower,
    moments: Sequence[Moments],
    calibration: Calibration,
    weights: Sequence[TokenWeights] | None = None,
    progress: str | None = None,
) -> list[Curve]:
    """Curves of kinds `qk_dims` and `value_dims` for every attention sublayer, bottom to top.

    Args:
        tower: a dense one with turned heads.
        moments: of its sublayers.
        calibration: images or texts; their residual streams are held in memory.
        weights: of the tokens after each sublayer, for compensation.
        progress: the title of a bar.

    Raises:
        UserError: activations are not finite.
    """
    sweep = Sweep(tower, calibration)
    all_weights = weights or [TokenWeights()] * len(sweep.parts)
    curves = []
    for index, part in enumerate(tqdm(sweep.parts, desc=progress, disable=progress is None)):
        if part.kind == "heads":
            curves.append(_query_key_curve(sweep, index, part, all_weights[index]))
            curves.append(_value_curve(sweep, index, part, moments[index]))
        sweep.climb(index)
    return curves


def _value_curve(sweep: Sweep, index: int, part: Sublayer, moments: Moments) -> Curve:
    features = [part.features(stream.hidden) for stream in sweep.streams]
    sizes, losses = dim_sizes(part.unit_width), []
    for size in sizes[:-1]:
        kept = (torch.arange(part.unit_width) < int(size)).repeat(part.units)
        losses.append(sweep.loss(index, features, kept, compensated(moments, part, kept)))
    return Curve(part.layer, "value_dims", part.unit_width, tuple(sizes.tolist()), (*losses, 0.0))


def _query_key_curve(sweep: Sweep, index: int, part: Sublayer, of_tokens: TokenWeights) -> Curve:
    """Contexts change with the queries, so each size has moments of its own."""
    sizes, losses = dim_sizes(part.unit_width), []
    every = torch.ones(part.output.in_features, dtype=torch.bool)
    for size in sizes[:-1]:
        moments = Moments(part.output.in_features, part.output.out_features)
        features = []
        for stream in sweep.streams:
            features.append(_with_query_size(part, stream.hidden, int(size)))
            target = part(stream.hidden) - stream.hidden
            moments.add_batch(features[-1], target, stream.weights(of_tokens))
        losses.append(sweep.loss(index, features, every, compensated(moments, part, every)))
    return Curve(part.layer, "qk_dims", part.unit_width, tuple(sizes.tolist()), (*losses, 0.0))


def _with_query_size(part: Sublayer, hidden: Tensor, size: int) -> Tensor:
    """What the output projection gets [b, n, H * h] if queries and keys end after `size` dims."""
    keep = (torch.arange(part.unit_width, device=hidden.device) < size).repeat(part.units)
    project = part.attention.q_proj
    with project.register_forward_hook(lambda _module, _args, queries: queries * keep):
        return part.features(hidden)
