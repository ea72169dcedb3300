"""Which tokens of an image or text stay, and which become one: pure functions on tensors.

Part of every checkpoint, beside `reduced_tower`, which calls them. Of an image token 0 is the class
token, which always stays, and the others, from 1 on, stand for patches, row by row. Of a text the
first and the last token that count for anything are its start and its end, which always stay.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, normalize, pad

BAYER_ORDER = 6
"""Bayer matrices of side 2**6 are larger than any grid of patches."""


def random_patches(rows: int, columns: int, keep: int, seed: int) -> Tensor:
    """A seeded subset of the patches, ascending, int64 [keep] on the CPU; the same for all images.

    The rule of FLIP (arXiv 2212.00794), with one subset for all batches, so that the embedding of
    an image doesn't depend on the batch that it comes in.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(rows * columns, generator=generator, device="cpu")
    return order[:keep].sort().values


def bayer(order: int) -> Tensor:
    """The Bayer matrix of side 2**order, int64: 0, 1, … in the order of ordered dithering.

    Whatever part of its entries is below a threshold lies evenly spread (Bayer 1973).
    """
    matrix = torch.zeros(1, 1, dtype=torch.long, device="cpu")
    for _ in range(order):
        top = torch.cat([4 * matrix, 4 * matrix + 2], dim=1)
        matrix = torch.cat([top, torch.cat([4 * matrix + 3, 4 * matrix + 1], dim=1)])
    return matrix


def grid_patches(rows: int, columns: int, keep: int) -> Tensor:
    """The most evenly spread patches, ascending, int64 [keep] on the CPU; the same for all images.

    Those of the lowest entries in a Bayer matrix laid over the grid: half of them is a chequered
    board, a quarter every second patch of every second row.
    """
    side = 2**BAYER_ORDER
    if max(rows, columns) > side:
        raise ValueError(f"grids of up to {side} x {side} patches only, found {rows} x {columns}")
    return bayer(BAYER_ORDER)[:rows, :columns].flatten().argsort()[:keep].sort().values


def salient_patches(pixels: Tensor, patch: tuple[int, int], keep: int) -> Tensor:
    """The patches of most local contrast, ascending, int64 [b, keep]: each image its own.

    Contrast is the variance of a patch's pixels, summed over the channels; of equal ones, as in
    the margin of a picture, the first stay.

    Args:
        pixels: [b, c, height, width].
        patch: height and width of a patch.
        keep: how many stay.
    """
    pixels = pixels.float()  # half precision would lose the difference
    variance = avg_pool2d(pixels.square(), patch) - avg_pool2d(pixels, patch).square()
    contrast = variance.sum(1).flatten(1).nan_to_num(nan=torch.inf)  # what is broken is seen
    least = contrast.topk(keep, dim=1).values[:, -1:]
    above, equal = contrast > least, contrast == least
    first = equal.cumsum(1) <= keep - above.sum(1, keepdim=True)
    return _places(above | (equal & first), keep)


def _places(chosen: Tensor, count: int) -> Tensor:
    """Where the `count` True of every row of bool [b, n] are, ascending, int64 [b, count].

    A sort of distinct numbers in place of a stable one, which ONNX has no operator for.
    """
    tokens = chosen.shape[1]
    places = torch.arange(tokens, device=chosen.device)
    return torch.where(chosen, places, places + tokens).sort(dim=1).values[:, :count]


class Matching(NamedTuple):
    """Which tokens merge, by their places: int64 [b, ·].

    `source` [b, r] merge into `target` [b, r], several possibly into one; `stay` [b, n - r] are all
    others, ascending.
    """

    source: Tensor
    target: Tensor
    stay: Tensor


def match(metric: Tensor, merged: int) -> Matching:
    """Bipartite soft matching (ToMe, arXiv 2210.09461, section 3).

    Every second token, the class token apart, is matched with the most similar of those between;
    the `merged` most similar pairs are taken.

    Args:
        metric: what similarity is the cosine of, [b, n, c].
        merged: r, at most the number of tokens at even places, without the class token.
    """
    metric = normalize(metric.float(), dim=-1)
    even, odd = metric[:, 2::2], metric[:, 1::2]
    best, partner = (even @ odd.transpose(1, 2)).max(-1)
    chosen = best.topk(merged, dim=1).indices
    source = 2 * chosen + 2
    stays = torch.ones(metric.shape[:2], dtype=torch.bool, device=metric.device)
    stay = _places(stays.scatter(1, source, 0), metric.shape[1] - merged)
    return Matching(source, 2 * partner.gather(1, chosen) + 1, stay)


def mergeable(tokens: int) -> int:
    """The most that `match` can merge of so many tokens, class token included."""
    return (tokens - 1) // 2


def merge(hidden: Tensor, sizes: Tensor, matching: Matching) -> tuple[Tensor, Tensor]:
    """Tokens [b, n - r, d] and their sizes [b, n - r] after merging: means weighted by size.

    Args:
        hidden: tokens [b, n, d].
        sizes: how many patches each stands for, [b, n].
        matching: of `match`.
    """
    source, target, stay = matching
    gone = sizes.gather(1, source)
    total = sizes.scatter_add(1, target, gone)
    # most tokens stay as they are: only the rows that something merges into are touched
    means = _taken(hidden, stay).to(torch.promote_types(hidden.dtype, sizes.dtype))
    kept = torch.arange(stay.shape[1], device=stay.device).expand_as(stay)
    place = torch.zeros_like(total, dtype=torch.long).scatter(1, stay, kept).gather(1, target)
    shares = (gone / total.gather(1, target))[..., None]
    towards = (_taken(hidden, source) - _taken(hidden, target)) * shares
    into = _rows(place, stay.shape[1])
    means = means.flatten(0, 1).index_add_(0, into, towards.flatten(0, 1)).view_as(means)
    return means.to(hidden.dtype), total.gather(1, stay)


def keep_ranked(hidden: Tensor, sizes: Tensor, ranks: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """The class token, the `keep` patches of highest rank, and the others as one token.

    The fused token is the mean of the others weighted by the exponential of their ranks, as EViT
    (arXiv 2202.07800, equation 4) weights by attention, whose logarithm the ranks are there.

    Args:
        hidden: tokens [b, n, d].
        sizes: how many patches each stands for, [b, n].
        ranks: of the tokens but the class token, [b, n - 1].
        keep: how many patches stay, less than n - 1.

    Returns:
        tokens [b, keep + 2, d] and their sizes [b, keep + 2].
    """
    order = ranks.argsort(dim=1, descending=True) + 1
    kept, others = order[:, :keep].sort(dim=1).values, order[:, keep:]
    stay = pad(kept, (1, 0))  # the class token, place 0, before them
    shares = ranks.gather(1, others - 1).softmax(dim=1)[..., None]
    fused = (_taken(hidden, others) * shares).sum(1, keepdim=True)
    left = sizes.gather(1, others).sum(1, keepdim=True)
    return (
        torch.cat([_taken(hidden, stay), fused], dim=1),
        torch.cat([sizes.gather(1, stay), left], dim=1),
    )


def ends_of(sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Where texts start and end, int64 [b] each: the first and last tokens of a size [b, n] > 0."""
    counts = (sizes > 0).int()
    return counts.argmax(1), sizes.shape[1] - 1 - counts.flip(1).argmax(1)


def keep_ranked_of_texts(
    hidden: Tensor, sizes: Tensor, ranks: Tensor, keep: Tensor, left: int
) -> tuple[Tensor, Tensor]:
    """Start and end, the tokens of highest rank between them, and the others as one.

    Fused as in `keep_ranked`, where the last of them was: all stay in their order, so
    under a causal mask none is seen by a token that it wasn't seen by. Padding comes after the end.

    Args:
        hidden: tokens [b, n, d].
        sizes: how many tokens each stands for, [b, n]; 0: padding.
        ranks: of the tokens, [b, n].
        keep: how many stay between start and end of each text, int64 [b].
        left: the most tokens that any text has then.

    Returns:
        tokens [b, left, d] and their sizes [b, left].
    """
    tokens = sizes.shape[1]
    places = torch.arange(tokens, device=sizes.device)
    start, end = ends_of(sizes)
    inner = (sizes > 0) & (places != start[:, None]) & (places != end[:, None])
    ranks = ranks.float().masked_fill(~inner, -torch.inf)
    order = ranks.argsort(dim=1, descending=True).argsort(dim=1)
    others = inner & (order >= keep[:, None])
    shares = ranks.masked_fill(~others, -torch.inf).softmax(dim=1).nan_to_num()[..., None]
    fused = (hidden * shares).sum(1, keepdim=True).to(hidden.dtype)
    last = others & (places == (places * others).amax(1, keepdim=True))
    total = (sizes * others).sum(1, keepdim=True)
    hidden = torch.where(last[..., None], fused, hidden)
    sizes = torch.where(last, total, sizes.masked_fill(others, 0))
    stay = torch.where(sizes > 0, places, places + tokens).sort(dim=1).values[:, :left] % tokens
    return _taken(hidden, stay), sizes.gather(1, stay)


def complexity(pixels: Tensor, size: int) -> Tensor:
    """What images lose if they are made `size` pixels wide: mean squared difference, [b].

    Args:
        pixels: square images, [b, c, s, s].
        size: the side that they are reduced to and enlarged from.
    """
    back = interpolate(resized(pixels, size), pixels.shape[2:], mode="bilinear")
    return (pixels - back).square().mean((1, 2, 3))


def resized(pixels: Tensor, size: int) -> Tensor:
    """Square images at another size, [b, c, size, size]; themselves if it is their own."""
    if pixels.shape[-1] == size:
        return pixels
    return interpolate(pixels, (size, size), mode="bicubic", antialias=True)


def _taken(hidden: Tensor, places: Tensor) -> Tensor:
    """The tokens at `places` [b, k] of [b, n, d], by whole rows: 5 times as fast as `gather`."""
    rows = hidden.flatten(0, 1).index_select(0, _rows(places, hidden.shape[1]))
    taken: Tensor = rows.unflatten(0, places.shape)
    return taken


def _rows(places: Tensor, tokens: int) -> Tensor:
    """Where the tokens at `places` [b, k] are once [b, tokens, d] is made [b * tokens, d]."""
    first = torch.arange(places.shape[0], device=places.device) * tokens
    return (places + first[:, None]).flatten()
