"""The first stage's embeddings, searched where they are stored.

Scores and order are those of the exact search: what the lists bring up is scored from the stored
embeddings. What they miss is missed, which is why their recall is measured. Without lists, or for
more results than were measured, all embeddings are read, a few megabytes at a time.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cascade.inverted.record import Inverted, InvertedFile, searched
from cascade.searching.blocks import Blocks, ranked_in_blocks
from cascade.searching.ranking import Ranking, ranked, scores_of
from cascade.storing.errors import CollectionError
from cascade.storing.store import FirstEmbeddings, Ids, places_in

_SPARE = 8
"""Results that are asked for beyond those wanted: products of halves are only about right."""


@dataclass(frozen=True)
class StoredRows:
    """See `FirstRows`; of the images of these ids, by position.

    Attributes:
        source: where the embeddings are.
        measured: what is known of their lists.
        ids: int64 [count], ascending.
        dimension: of an embedding; 0: there are none.
    """

    source: FirstEmbeddings
    measured: InvertedFile
    ids: Ids
    dimension: int = 0

    @classmethod
    def none(cls, source: FirstEmbeddings, measured: InvertedFile) -> "StoredRows":
        """Of no images yet."""
        return cls(source, measured, np.empty(0, np.int64))

    @property
    def count(self) -> int:
        """See `FirstRows`."""
        return len(self.ids)

    @property
    def embeddings(self) -> Tensor:
        """Refused.

        Raises:
            CollectionError: always: `at` and `blocks` give them.
        """
        raise CollectionError(
            "this needs all of the first stage's embeddings in memory: open the collection with "
            'index="exact", on a machine that can hold them'
        )

    @property
    def how(self) -> str:
        """See `FirstRows`."""
        return searched(self.lists_used())

    def lists_used(self) -> Inverted | None:
        """What was measured of the lists that are searched; None: all is read."""
        return self.measured.in_use(self.source)

    def with_ids(self, ids: Ids) -> "StoredRows":
        """These and after them those of other ids, larger ones."""
        dimension = self.dimension or self.source.shape()[1]
        return replace(self, ids=np.concatenate([self.ids, ids]), dimension=dimension)

    def ranked(self, queries: Tensor, wanted: int, gone: Tensor) -> Ranking:
        """See `FirstRows`."""
        self._check(queries)
        used, wanted = self.lists_used(), min(wanted, self.count - len(gone))
        depth = None if used is None else used.depth(wanted)
        if used is None or depth is None:
            return self.ranked_exactly(queries, wanted, gone)
        parts = [
            self.probed(query, wanted, gone, depth.probes, used.lists) for query in queries.split(1)
        ]
        empty = torch.empty(0, wanted)
        return Ranking.joined(parts) if parts else Ranking(empty.long(), empty)

    def ranked_exactly(self, queries: Tensor, wanted: int, gone: Tensor) -> Ranking:
        """See `FirstRows`; all embeddings are read once."""
        self._check(queries)
        return ranked_in_blocks(self.blocks(), queries, wanted, gone)

    def probed(self, query: Tensor, wanted: int, gone: Tensor, probes: int, lists: int) -> Ranking:
        """What so many of the lists hold of the best for a query [1, d], at least one.

        More of them are looked into where these don't hold as many results.
        """
        there = max(1, self.count - len(gone))
        number = (wanted + max(_SPARE, wanted // 8)) * self.count // there
        while True:
            found = self.source.nearest(query[0].numpy(), number, probes)
            positions, first = np.unique(places_in(self.ids, found.ids), return_index=True)
            kept = (positions >= 0) & ~np.isin(positions, gone.numpy())
            if kept.sum() >= wanted:
                break
            if len(found.ids) >= number:  # the others are of images that are gone
                number *= 2
            elif probes < lists:
                probes = min(2 * probes, lists)
            else:
                return self.ranked_exactly(query, wanted, gone)
        vectors = torch.from_numpy(np.ascontiguousarray(found.vectors[first[kept]]))
        scores = scores_of(vectors, torch.arange(len(vectors))[None], query)
        return ranked(torch.from_numpy(positions[kept])[None], scores, wanted)

    def at(self, positions: Tensor) -> Tensor:
        """See `FirstRows`.

        Raises:
            CollectionError: one isn't stored any more.
        """
        ids = self.ids[positions.numpy()]
        if not len(ids):
            return torch.zeros(0, self.dimension)
        found = self.source.of(ids)
        order = np.argsort(found.ids, kind="stable")
        places = places_in(found.ids[order], ids)
        if (places < 0).any():
            raise CollectionError("images were removed while they were read: try again")
        return torch.from_numpy(np.ascontiguousarray(found.vectors[order[places]]))

    def blocks(self, start: int = 0) -> Blocks:
        """See `FirstRows`."""
        if start >= self.count:
            return
        lowest = int(self.ids[start]) if start else 0
        for block in self.source.blocks(lowest):
            positions = places_in(self.ids, block.ids)
            known = positions >= 0
            if known.any():
                vectors = block.vectors if known.all() else block.vectors[known]
                yield torch.from_numpy(positions[known]), _tensor(vectors)

    def _check(self, queries: Tensor) -> None:
        if self.count and queries.shape[1] != self.dimension:
            raise ValueError(
                f"a stage encodes images to {self.dimension} dimensions, "
                f"but queries to {queries.shape[1]}"
            )


def _tensor(vectors: np.ndarray[tuple[int, ...], np.dtype[np.floating]]) -> Tensor:
    """A tensor of an array that may be read-only, as Arrow's are."""
    return torch.from_numpy(vectors if vectors.flags.writeable else vectors.copy())
