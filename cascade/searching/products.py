"""Which images may be among the best for a query: one matrix product, and how far it may be off.

Nothing here decides an order. A product is computed fast, in whatever order and precision the
processor is fastest in; every image whose score may reach that of the wanted ones, given the
product's error, is a contender, and `cascade.searching.ranking` scores those exactly. The product
reads all embeddings once, and that is what a search of many images takes its time for.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

_PRODUCTS_AT_ONCE = 1 << 24  # 64 MB of products of a block of queries and a block of images
_IMAGES_AT_ONCE = 1 << 17
_ROWS_AT_ONCE = 2048  # 4 MB of them as float32: they stay in the processor's cache
_ONE_BY_ONE = 3  # up to so many queries are multiplied with halves faster as halves, one by one
_RUN = 64
_ROUNDOFF = 2.0**-24  # of float32
_HALF_ROUNDOFF = 2.0**-11
_LEAST_HALF = 2.0**-24
_LARGEST_HALF = 60_000.0  # a larger product may become infinite
_SQUARED = (1e-12, 1e18)  # lengths whose squares float32 holds
_LARGEST_PRODUCT = 1e37  # beyond it a sum in float32 may overflow on its way


@dataclass(frozen=True)
class Contenders:
    """Pairs of a query and an image that may be among the best of that query.

    In order of positions. A product v and the score s that it stands for differ by at most
    `error` + `relative` · |v|.

    Attributes:
        queries: int64 [p], which query.
        positions: int64 [p], which image.
        products: float32 [p].
        error: float64 [p].
        relative: one number.
    """

    queries: Tensor
    positions: Tensor
    products: Tensor
    error: Tensor
    relative: float

    def doubted(self, scores: Tensor) -> Tensor:
        """Of which pairs the exact scores float32 [p] show that the product was off by more.

        As where torch was told to compute products in less than float32.
        """
        allowed = self.error + self.relative * self.products.double().abs()
        return ~((self.products.double() - scores).abs() <= allowed)


def queries_at_once(images: int) -> int:
    """How many queries are multiplied with so many images at once."""
    return max(1, _PRODUCTS_AT_ONCE // max(1, min(images, _IMAGES_AT_ONCE)))


def is_bounded(queries: Tensor, longest: float) -> bool:
    """Whether no product with embeddings of that length overflows; False if one is NaN."""
    return bool((_lengths(queries) * longest < _LARGEST_PRODUCT).all())


def contenders(
    embeddings: Tensor, queries: Tensor, wanted: int, longest: float, gone: Tensor
) -> Contenders:
    """All images whose score may be among the `wanted` highest with each query.

    At least `wanted` images reach the `wanted`-th best product t, so their scores reach
    s = t − error − relative · |t|, and whatever belongs to the result has a product that is not
    further than its own error below s. t grows from one block of images to the next; until the
    last, too many are taken rather than too few.

    Args:
        embeddings: float32 or float16 [n, d], by position.
        queries: float32 [b, d], such that `is_bounded`.
        wanted: how many; more than `wanted` images are not gone.
        longest: the largest length of the embeddings.
        gone: int64 [g], ascending: positions that are left out.
    """
    how = _way(embeddings, queries, longest)
    best: Tensor | None = None
    parts = []
    for start, products in how.products(embeddings):
        if len(gone):
            ends = torch.searchsorted(gone, torch.tensor([start, start + len(products)]))
            products.index_fill_(0, gone[slice(*ends)] - start, float("-inf"))
        own = _best(products, wanted)
        best = own if best is None else _best(torch.cat([best, own]), wanted)
        reached = best[-1] if len(best) == wanted else torch.full((len(queries),), float("-inf"))
        least = how.least(reached)
        pairs = (products >= least).nonzero()
        parts.append((pairs[:, 1], pairs[:, 0] + start, products[pairs[:, 0], pairs[:, 1]]))
    asked, positions, values = parts[0]
    if len(parts) > 1:
        asked, positions, values = (torch.cat(each) for each in zip(*parts, strict=True))
        kept = values >= least[asked]
        asked, positions, values = asked[kept], positions[kept], values[kept]
    return Contenders(asked, positions, values, how.error[asked], how.relative)


def length_of_longest(embeddings: Tensor) -> float:
    """The largest Euclidean length among embeddings [n, d], 0 if there are none.

    Never less than it is, and more by no more than a sum in float32 may be off.
    """
    if not embeddings.numel():
        return 0.0
    blocks = embeddings.split(_ROWS_AT_ONCE)
    lengths = [torch.linalg.vector_norm(block.float(), dim=1).max() for block in blocks]
    longest = float(torch.stack(lengths).max())
    if _SQUARED[0] < longest < _SQUARED[1]:
        return longest * (1 + _error_bound(embeddings.shape[1]))
    lengths = [torch.linalg.vector_norm(block.double(), dim=1).max() for block in blocks]
    return float(torch.stack(lengths).max())


@dataclass(frozen=True)
class _Float32:
    """Products in float32, in whatever order their terms are added.

    Such a sum is off by at most γ_d·‖a‖·‖b‖ (Higham, Accuracy and Stability of Numerical
    Algorithms, equation 3.5). Halves become float32 on the way, block by block.
    """

    queries: Tensor
    error: Tensor
    relative: float = 0.0

    @classmethod
    def of(cls, queries: Tensor, longest: float) -> "_Float32":
        bound = _error_bound(queries.shape[1])
        error = bound * _lengths(queries) * longest + torch.finfo(torch.float32).tiny
        return cls(queries, error)

    def products(self, embeddings: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Of each block of images [c, b], and where it starts."""
        for start in range(0, len(embeddings), _IMAGES_AT_ONCE):
            block = embeddings[start : start + _IMAGES_AT_ONCE]
            if block.dtype == torch.float32:
                yield start, _product(block, self.queries)
                continue
            products = torch.empty(len(block), len(self.queries))
            room = torch.empty(_ROWS_AT_ONCE, block.shape[1])
            for top in range(0, len(block), _ROWS_AT_ONCE):
                some = block[top : top + _ROWS_AT_ONCE]
                rows = room[: len(some)].copy_(some)
                products[top : top + _ROWS_AT_ONCE] = _product(rows, self.queries)
            yield start, products

    def least(self, reached: Tensor) -> Tensor:
        """The least product of an image that may belong to the result: float32 [b].

        Args:
            reached: float32 [b], which `wanted` products reach; −∞: not so many yet.
        """
        product = reached.double().clamp(min=-10 * _LARGEST_PRODUCT)
        score = product - self.error - self.relative * product.abs()
        least = score - self.error
        least = least / (1 + self.relative * least.sign())
        return (least - least.abs() * 2 * _ROUNDOFF).float()  # which rounds


class _Halves(_Float32):
    """Products of halves with queries rounded to halves, added in float32 and rounded to halves.

    Half as many bytes are read as for float32. A score is a·b = a·b' + a·(b − b'), where b' is the
    rounded query: the first is off by γ_d·‖a‖·‖b'‖ and the rounding of the result, the second is
    at most ‖a‖·‖b − b'‖.
    """

    @classmethod
    def of(cls, queries: Tensor, longest: float) -> "_Halves":
        rounded = queries.half()
        lost = _lengths(queries.double() - rounded.double())
        bound = _error_bound(queries.shape[1])
        error = (bound * _lengths(rounded.double()) + lost) * longest + _LEAST_HALF
        return cls(rounded, error, _HALF_ROUNDOFF)

    def products(self, embeddings: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Of all images [n, b]."""
        columns = [_product(embeddings, query).float() for query in self.queries.split(1)]
        yield 0, columns[0] if len(columns) == 1 else torch.cat(columns, dim=1)


def _way(embeddings: Tensor, queries: Tensor, longest: float) -> _Float32:
    """How products of these are computed fastest."""
    halves = embeddings.dtype == torch.float16 and len(queries) <= _ONE_BY_ONE
    if halves and bool((_lengths(queries) * max(1.0, longest) < _LARGEST_HALF).all()):
        return _Halves.of(queries, longest)
    return _Float32.of(queries, longest)


def _product(rows: Tensor, queries: Tensor) -> Tensor:
    """Products [c, b], in the type of both."""
    if len(queries) != 1:
        return rows @ queries.T
    if rows.dtype == torch.float16 and _HALVES_BY_MATRICES:
        return (queries @ rows.T).T
    return torch.mv(rows, queries[0])[:, None]


def _multiplies_halves() -> bool:
    """Whether oneDNN multiplies matrices of halves on this processor, by its own instructions.

    Then that is 1.5 to 2.4 times as fast as `torch.mv`; elsewhere it is many times slower.
    """
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
    except (AttributeError, RuntimeError):
        return False


_HALVES_BY_MATRICES = _multiplies_halves()


def _best(products: Tensor, number: int) -> Tensor:
    """So many of the largest products with each query [≤ number, b], best first.

    Of many they are the largest of runs of 64: none is larger than the one it stands for, and
    that is what `contenders` needs. Runs are interleaved, as neighbours are alike.
    """
    runs = len(products) // _RUN
    if runs > 2 * number:
        largest = products[: runs * _RUN].unflatten(0, (_RUN, runs)).amax(dim=0)
        products = torch.cat([largest, products[runs * _RUN :]])
    return products.T.contiguous().topk(min(number, len(products)), dim=1).values.T


def _lengths(queries: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(queries, dim=1, dtype=torch.float64)
    return lengths


def _error_bound(dimension: int) -> float:
    """γ_d of a sum of d products, with the roundings of what it is compared with."""
    terms = (dimension + 4) * _ROUNDOFF
    return terms / (1 - terms) if terms < 1 else float("inf")
