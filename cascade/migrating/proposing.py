"""A migration, measured before it is done: the map, and what the collection would return with it.

What is compared is the new last stage behind the mapped first one, and the new last stage with all
images encoded anew. Of images that the new tower has encoded and no map was learnt from, all is
known that matters: where the new tower ranks them among each other, and where the mapped first
stage ranks each among all images of the collection (`cascade.measuring`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cascade.collecting.restaging import Restaging
from cascade.collecting.rounding import PRECISIONS
from cascade.collection import Collection
from cascade.mapped import Map
from cascade.measuring.captions import captions_of, drawn_texts
from cascade.measuring.finding import Found, best_of_sample, first_ranking, found_at
from cascade.measuring.sampling import results_of_sample
from cascade.migrating.mapping import KINDS, LEAST, kept_by_kinds
from cascade.migrating.sample import Sample, encoded_sample
from cascade.stage import Encoder

_HELD_OUT = 4  # one sampled image in so many is measured on
_LEAST_SAMPLED = 2 * LEAST


@dataclass(frozen=True)
class Terms:
    """How a migration is measured.

    Attributes:
        images: that the new tower encodes for it, drawn from all.
        k: results that are compared.
        queries: texts that are asked; None: the collection's captions, or where it has none the
            images that are measured on.
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
        found: from which m on each query's results are found.
        candidates: int64 [q, largest], the mapped first stage's ranking.
        queries: what was asked, in words.
        held_out: images that were measured on.
    """

    found: Found
    candidates: Tensor
    queries: str
    held_out: int

    @property
    def largest(self) -> int:
        """The largest m that was looked at."""
        return self.candidates.shape[1]

    def agreement(self, m: int) -> float:
        """The share of the results of a full re-encoding that m candidates hold, in [0, 1]."""
        return float(self.found.agreements(m).mean())

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
        measured: by a map of the same kind, learnt without the images that were measured on.
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
    held_out, rest = _parted(len(sample), terms.seed)
    kept = kept_by_kinds(old[rest], new[rest], terms.k, terms.seed)
    kind = max(kept, key=lambda each: kept[each])
    trial = KINDS[kind](old[rest], new[rest])
    embeddings = trial(sample.contents.rows.embeddings).to(dtype).float()
    measured = _measured(collection, last, sample, new, held_out, embeddings, terms)
    return Proposal(last, KINDS[kind](old, new), kind, kept, sample, measured)


def _measured(
    collection: Collection,
    last: Encoder,
    sample: Sample,
    new: Tensor,
    held_out: Tensor,
    embeddings: Tensor,
    terms: Terms,
) -> Measured:
    """Look for the new tower's best held-out images among the mapped first stage's of all."""
    contents, positions = sample.contents, sample.positions[held_out]
    queries, of, own = _asked(collection, last, new[held_out], positions, terms)
    one = int(own is not None)
    sampled, images = len(held_out) - one, len(contents) - one
    wanted = results_of_sample(terms.k, sampled, images)
    largest = max(terms.largest, terms.k)
    candidates = first_ranking(embeddings, queries, largest, contents.gone, own)
    best = best_of_sample(new[held_out], positions, queries, wanted, own)
    found = found_at(candidates, best, wanted, best.positions.shape[1] == sampled)
    return Measured(found, candidates, of, len(held_out))


def _asked(
    collection: Collection, last: Encoder, new: Tensor, positions: Tensor, terms: Terms
) -> tuple[Tensor, str, Tensor | None]:
    """Queries by the new tower, what they are, and the images that they are if they are images."""
    texts, of = terms.queries, "given queries"
    if texts is None and (captions := captions_of(collection)):
        texts, of = drawn_texts(captions, terms.drawn, terms.seed), "captions of the collection"
    if texts is not None:
        return last.encode_texts(texts), f"{len(texts):,} {of}", None
    chosen = np.random.default_rng(terms.seed).permutation(len(new))[: terms.drawn]
    of = f"{len(chosen):,} images in place of texts"
    return new[chosen], of, positions[chosen]


def _parted(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Which of so many images are measured on, and which are learnt from; both ascending."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    held_out = order[: count // _HELD_OUT]
    return held_out.sort().values, order[len(held_out) :].sort().values


def _check_enough(images: int, k: int, what: str) -> None:
    least = max(_LEAST_SAMPLED, _HELD_OUT * (k + 1))
    if images < least:
        raise ValueError(
            f"{what} {images:,} images: a map for the {k} best results takes {least:,} to be "
            "learnt and measured. Index more images, or make a new collection"
        )
