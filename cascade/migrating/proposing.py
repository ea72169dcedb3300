"""A migration, measured before it is done: the map, and what the collection would return with it.

What is compared is the new last stage behind the mapped first one, and the new last stage with all
images encoded anew. The new tower encodes a sample of the images only, so there are two figures,
between which the truth lies: the sample's best images looked for among the sample, which is easier
than among all, and among all images (`cascade.measuring.sampling`), where those are harder to find
than the best of all are. If the sample is all images, both are what will be.

No image is mapped for it by what was learnt from that image: of the sample each fold by the map of
the others, the rest by that of the whole sample.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cascade.collecting.restaging import Restaging
from cascade.collecting.rounding import PRECISIONS
from cascade.collection import Collection
from cascade.measuring.captions import captions_of, drawn_texts
from cascade.measuring.finding import Found, best_of_sample, first_ranking, found_at, others
from cascade.measuring.sampling import results_of_sample
from cascade.migrating.mapping import KINDS, LEAST, kept_by_kinds
from cascade.migrating.sample import Sample, encoded_sample
from cascade.searching.blocks import Blocks, ranked_in_blocks
from cascade.searching.embeddings import Rows
from cascade.stages.mapped import Map
from cascade.stages.stage import Encoder

_FOLDS = 4
_LEAST = 2 * LEAST


@dataclass(frozen=True)
class Terms:
    """How a migration is measured.

    Attributes:
        images: that the new tower encodes for it, drawn from all.
        k: results that are compared.
        queries: texts that are asked; None: the collection's captions, or where it has none
            sampled images.
        drawn: queries drawn from captions or images.
        largest: the largest m that is looked at.
        seed: of all that is drawn.
    """

    images: int = 2000
    k: int = 10
    queries: Sequence[str] | None = None
    drawn: int = 1000
    largest: int = 4096
    seed: int = 0


@dataclass(frozen=True)
class Measured:
    """What the migrated collection returns of the results of a full re-encoding.

    Attributes:
        among_all: from which m on each query's results are found among all images.
        among_sample: the same if the sample were all images.
        candidates: int64 [q, largest], the mapped first stage's ranking of all images.
        queries: what was asked, in words.
    """

    among_all: Found
    among_sample: Found
    candidates: Tensor
    queries: str

    @property
    def largest(self) -> int:
        """The largest m that was looked at."""
        return self.candidates.shape[1]

    def agreement(self, m: int) -> float:
        """The share of the results of a full re-encoding that m candidates hold at least."""
        return float(self.among_all.agreements(m).mean())

    def sample_agreement(self, m: int) -> float:
        """That share, if the sample were all images."""
        return float(self.among_sample.agreements(m).mean())

    def brought_up(self, m: int) -> int:
        """Number of images that the queries make the new last stage encode."""
        return len(self.candidates[:, :m].unique())

    def smallest_m(self, agreement: float, smallest: int) -> int | None:
        """The smallest m of at least that agreement; None: not even the largest has it."""
        if self.agreement(self.largest) < agreement:
            return None
        low, high = min(smallest, self.largest) - 1, self.largest
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.agreement(middle) >= agreement else (middle, high)
        return high


@dataclass(frozen=True)
class Proposal:
    """A new last stage for a collection, and the map that goes with it.

    Attributes:
        last: the new last stage.
        map: learnt from the whole sample.
        kind: of the map.
        kept: by kind of map, what was kept of the new tower's neighbours on images left out.
        sample: what the new tower has encoded so far.
        measured: by maps of the same kind, none learnt from the images that it maps.
    """

    last: Encoder
    map: Map
    kind: str
    kept: Mapping[str, float]
    sample: Sample
    measured: Measured

    def restaging(self, m: int) -> Restaging:
        """What `Collection.restage` takes, with so many candidates."""
        return Restaging(self.map, self.last, [m], self.sample.ids, self.sample.embeddings.numpy())


def proposed(
    collection: Collection,
    last: Encoder,
    terms: Terms | None = None,
    batch_size: int = 32,
    progress: Callable[[int], object] | None = None,
) -> Proposal:
    """Learn the map to a new last stage from a sample, and measure it; nothing is changed.

    `collection.restage(proposal.restaging(m))` accepts it.

    Args:
        collection: of any stages, whose first is mapped.
        last: the new last stage.
        terms: how it is measured.
        batch_size: images that the new tower encodes at once.
        progress: told after each batch how many images were looked at.

    Raises:
        ValueError: there are too few images to learn from, or no more than results.
    """
    terms = terms or Terms()
    _check_enough(len(collection), terms.k, "the collection holds")
    sample = encoded_sample(collection, last, terms.images, terms.seed, batch_size, progress)
    _check_enough(len(sample), terms.k, "of the images drawn the new tower can read")
    dtype = PRECISIONS[collection.status().precision]
    old, new = sample.old, sample.embeddings.to(dtype).float()
    kept = kept_by_kinds(old, new, terms.k, terms.seed)
    kind = max(kept, key=lambda each: kept[each])
    solved = KINDS[kind](old, new)
    mapped = _Mapped(sample, solved, _crossed(kind, old, new, terms.seed), dtype)
    measured = _measured(collection, last, sample, new, mapped, terms)
    return Proposal(last, solved, kind, kept, sample, measured)


@dataclass(frozen=True)
class _Mapped:
    """The first stage's embeddings as they are measured, block by block.

    Attributes:
        sample: whose embeddings are not by the map of the whole.
        map: of the whole sample.
        crossed: those of the sample, float32 [s, e].
        dtype: what they are kept in.
    """

    sample: Sample
    map: Map
    crossed: Tensor
    dtype: torch.dtype

    @property
    def of_sample(self) -> Tensor:
        """Those of the sample, float32 [s, e]."""
        return self.crossed.to(self.dtype).float()

    def blocks(self) -> Blocks:
        """Those of all images, float32."""
        slots = torch.full((self.sample.contents.rows.count,), -1, dtype=torch.int64)
        slots[self.sample.positions] = torch.arange(len(self.sample))
        for positions, embeddings in self.sample.contents.rows.blocks():
            mapped = self.map(embeddings).to(self.dtype).float()
            sampled = slots[positions] >= 0
            mapped[sampled] = self.of_sample[slots[positions][sampled]]
            yield positions, mapped


def _crossed(kind: str, old: Tensor, new: Tensor, seed: int) -> Tensor:
    """The sample's embeddings, each fold's by a map that was learnt from the others."""
    order = torch.randperm(len(old), generator=torch.Generator().manual_seed(seed))
    found = torch.empty(new.shape)
    for fold in range(_FOLDS):
        own = order[fold::_FOLDS]
        others = torch.ones(len(old), dtype=torch.bool)
        others[own] = False
        found[own] = KINDS[kind](old[others], new[others])(old[own])
    return found


def _measured(
    collection: Collection,
    last: Encoder,
    sample: Sample,
    new: Tensor,
    mapped: "_Mapped",
    terms: Terms,
) -> Measured:
    """Look for the new tower's best images of the sample among the mapped first stage's."""
    contents, positions, k = sample.contents, sample.positions, terms.k
    queries, of, chosen = _asked(collection, last, new, terms)
    own = None if chosen is None else positions[chosen]
    one = int(own is not None)
    sampled, images = len(sample) - one, len(contents) - one
    wanted = results_of_sample(k, sampled, images)
    most = max(terms.largest, k)
    ranking = ranked_in_blocks(mapped.blocks(), queries, most + one, contents.hidden)
    candidates = others(ranking, own, most).positions
    best = best_of_sample(new, positions, queries, wanted, own)
    among_all = found_at(candidates, best, wanted, best.positions.shape[1] == sampled)
    places = torch.arange(len(sample))
    none_gone, rows = torch.empty(0, dtype=torch.int64), Rows.of(mapped.of_sample)
    alone = first_ranking(rows, queries, len(sample), none_gone, chosen).positions
    best = best_of_sample(new, places, queries, k, chosen)
    among_sample = found_at(alone, best, k, best.positions.shape[1] == sampled)
    return Measured(among_all, among_sample, candidates, of)


def _asked(
    collection: Collection, last: Encoder, new: Tensor, terms: Terms
) -> tuple[Tensor, str, Tensor | None]:
    """Queries by the new tower, in words, and which sampled images they are if they are images."""
    texts, of = terms.queries, "given queries"
    if texts is None and (captions := captions_of(collection.rows())):
        texts, of = drawn_texts(captions, terms.drawn, terms.seed), "captions of the collection"
    if texts is not None:
        return last.encode_texts(texts), f"{len(texts):,} {of}", None
    chosen = np.random.default_rng(terms.seed).permutation(len(new))[: terms.drawn]
    return new[chosen], f"{len(chosen):,} images in place of texts", torch.from_numpy(chosen)


def _check_enough(images: int, k: int, what: str) -> None:
    least = max(_LEAST, k + 2)
    if images < least:
        raise ValueError(
            f"{what} {images:,} images: a map for the {k} best results takes {least:,} to be "
            "learnt and measured. Index more images, or make a new collection"
        )
