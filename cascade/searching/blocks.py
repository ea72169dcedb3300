"""The first stage's embeddings wherever they are, and exact ranking of what isn't all in memory.

A ranking block by block is, bit for bit, that of all at once: scores are of pairs, and a result of
all is a result of its block.
"""

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from cascade.searching.ranking import Ranking, rank_all, ranked

Blocks: TypeAlias = Iterator[tuple[Tensor, Tensor]]
"""Positions int64 [n] and their embeddings float32 or float16 [n, d], a few at a time."""


class FirstRows(Protocol):
    """The first stage's embeddings of the images of a cascade, at one moment."""

    @property
    def count(self) -> int:
        """How many there are, of images that are gone too."""

    @property
    def dimension(self) -> int:
        """Of one; 0: there are none."""

    @property
    def embeddings(self) -> Tensor:
        """All of them, float32 or float16 [count, d].

        Raises:
            CollectionError: they are too many to be held.
        """

    def ranked(self, queries: Tensor, wanted: int, gone: Tensor) -> Ranking:
        """The `wanted` images that score highest with queries [b, d], as a search finds them.

        Arguments as of `rank_all`.
        """

    def ranked_exactly(self, queries: Tensor, wanted: int, gone: Tensor) -> Ranking:
        """The same, and none is missed."""

    def at(self, positions: Tensor) -> Tensor:
        """Those of positions [n], float32 or float16 [n, d]."""

    def blocks(self, start: int = 0) -> Blocks:
        """Those from a position on, each position once, in any order."""

    @property
    def how(self) -> str:
        """In a few words, how `ranked` searches."""


def ranked_in_blocks(
    blocks: Iterable[tuple[Tensor, Tensor]], queries: Tensor, wanted: int, gone: Tensor
) -> Ranking:
    """`rank_all` of embeddings that come in blocks, in any order.

    Args:
        blocks: positions [n] and embeddings [n, d].
        queries: float32 [b, d].
        wanted: how many; fewer if there aren't as many.
        gone: int64, positions that are left out.

    Raises:
        ValueError: images and queries have different dimensions.
    """
    empty = torch.empty(len(queries), 0)
    best = Ranking(empty.long(), empty)
    for positions, embeddings in blocks:
        order = positions.argsort()
        positions, embeddings = positions[order], embeddings[order]
        hidden = torch.isin(positions, gone).nonzero().flatten()
        found = rank_all(embeddings, queries, wanted, gone=hidden)
        best = _merged(best, Ranking(positions[found.positions], found.scores), wanted)
    return best


def _merged(one: Ranking, other: Ranking, wanted: int) -> Ranking:
    """The best of two rankings; of equal scores the first position."""
    positions = torch.cat([one.positions, other.positions], dim=1)
    scores = torch.cat([one.scores, other.scores], dim=1)
    order = positions.argsort(dim=1)
    return ranked(positions.gather(1, order), scores.gather(1, order), wanted)
