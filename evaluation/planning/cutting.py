"""Whether a score tells that nothing in a collection matches: measured, and learnt if it does.

Queries that something matches are the collection's captions, searched as they will be. Queries that
nothing matches are the same captions in the same collection without the images that they belong to:
the hardest kind, as all of the words are such as occur in it. Whatever else matches them stays, so
what is caught of them is no more than what is caught of queries that really nothing matches. Or
both kinds are given.

The scores of a third of them choose what is compared, the next third gives the threshold
(`evaluation.planning.conformal`), and the last third measures what it does.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cascade.calibrated.calibration import Calibration
from cascade.calibrated.cutoff import SCORES, Cutoff, Score
from cascade.calibrated.margins import Values, best_scores, matching_scores
from cascade.calibrated.rating import Rated
from cascade.collection import Collection
from cascade.measuring.captions import captioned, drawn_texts
from cascade.measuring.copies import copies_of
from cascade.searching.ranking import NOTHING, Ranking, rank_candidates
from evaluation.planning.conformal import share_at_least, threshold

TIMES = 2
"""How many times as large the share caught has to be as the share that may be wrongly rejected."""
PARTS = 3
_BATCH = 256
_MOST_HIDDEN = 0.5


@dataclass(frozen=True)
class Texts:
    """Queries to tell apart.

    Attributes:
        matching: texts that something matches.
        unmatched: texts that nothing matches once what is hidden from them is left out.
        hidden: keys of the images that are left out for each of these.
        of: what the former are.
        against: what the latter are.
    """

    matching: Sequence[str]
    unmatched: Sequence[str]
    hidden: Sequence[frozenset[str]]
    of: str
    against: str

    @property
    def fewest(self) -> int:
        """How many there are of the kind that there are fewer of."""
        return min(len(self.matching), len(self.unmatched))


@dataclass(frozen=True)
class Told:
    """What a score tells of queries.

    Attributes:
        score: which one.
        threshold: below which nothing matches.
        rejected: share of those that something matches that are below it.
        caught: share of those that nothing matches that are below it.
        caught_at_least: what that share is at least, with the confidence asked for.
        queries: how many the threshold was read off.
        tested: how many of each kind these shares were measured on.
    """

    score: Score
    threshold: float
    rejected: float
    caught: float
    caught_at_least: float
    queries: int
    tested: int

    def useful(self, share: float) -> bool:
        """Whether it surely catches `TIMES` as much as it may wrongly reject."""
        return self.caught_at_least >= TIMES * share


@dataclass(frozen=True)
class Handing:
    """How many candidates are handed on: m, or as many as a calibration says if there is one."""

    m: int
    calibration: Calibration | None = None

    @property
    def deepest(self) -> int:
        """The most of any query."""
        return self.m if self.calibration is None else self.calibration.depth


def caption_texts(collection: Collection, number: int, seed: int) -> Texts | None:
    """So many captions drawn from all, with replacement; None: the collection has none.

    Hidden from a caption are its own image, those that have the same caption in any case and
    spacing, and copies of these. A caption of more than half of all images says too little of any
    to be one that nothing matches, and is left out there.
    """
    known = captioned(collection.rows())
    if not known:
        return None
    owners: dict[str, set[str]] = defaultdict(set)
    for key, captions in known:
        for text in captions:
            owners[_plain(text)].add(key)
    every = [text for _, captions in known for text in captions]
    drawn = drawn_texts(every, number, seed)
    copies = copies_of(collection.rows())
    unmatched, hidden = [], []
    for text in drawn:
        same = owners[_plain(text)]
        same = same.union(*(copies.get(key, ()) for key in same))
        if len(same) <= _MOST_HIDDEN * len(collection):
            unmatched.append(text)
            hidden.append(frozenset(same))
    return Texts(
        drawn,
        unmatched,
        hidden,
        "captions of the collection",
        "the same captions without the images that they belong to",
    )


def measured_cutoff(
    collection: Collection,
    texts: Texts,
    handing: Handing,
    share: float,
    confidence: float,
    seed: int,
    progress: Callable[[int], object] | None = None,
) -> Told:
    """Search by all queries, and measure what the better score tells.

    The last stage encodes what they bring up, as it does for any search; the collection keeps it.

    Args:
        collection: with two stages.
        texts: at least three of each kind.
        handing: how many candidates are handed on.
        share: of the queries that something matches that may be rejected, in (0, 1).
        confidence: of that, and of what is caught.
        seed: of which query is in which third.
        progress: told how many queries were answered.

    Raises:
        ValueError: there are too few of them for that confidence.
    """
    whole: list[frozenset[str]] = [frozenset()] * len(texts.matching)
    high = _scores(collection, texts.matching, whole, handing, progress)
    low = _scores(collection, texts.unmatched, texts.hidden, handing, progress)
    collection.flush()
    return told(high, low, share, confidence, seed)


def told(
    matching: Mapping[Score, Values],
    unmatched: Mapping[Score, Values],
    share: float,
    confidence: float,
    seed: int,
) -> Told:
    """What the better of some scores tells, of queries [n] and [u] of both kinds.

    Arguments as of `measured_cutoff`.

    Raises:
        ValueError: there are too few for that confidence.
    """
    generator = np.random.default_rng(seed)
    parts = [
        np.array_split(generator.permutation(len(next(iter(kind.values())))), PARTS)
        for kind in (matching, unmatched)
    ]
    (choosing, calibrating, testing), (others, _, tested) = parts

    def promise(score: Score) -> float:
        limit = np.quantile(matching[score][choosing], share, method="lower")
        return float((unmatched[score][others] < limit).mean())

    best = max(matching, key=promise)  # the first of those that do equally well
    limit = threshold(matching[best][calibrating], share, confidence)
    if limit is None or not len(tested):
        raise ValueError(f"{len(calibrating)} queries are too few for a threshold")
    caught = unmatched[best][tested] < limit
    return Told(
        score=best,
        threshold=limit,
        rejected=float((matching[best][testing] < limit).mean()),
        caught=float(caught.mean()),
        caught_at_least=share_at_least(int(caught.sum()), len(caught), confidence),
        queries=len(calibrating),
        tested=len(tested),
    )


def cutoff_of(
    found: Told,
    collection: Collection,
    texts: Texts,
    handing: Handing,
    share: float,
    confidence: float,
) -> Cutoff:
    """What is written into a collection's record of a score that is useful."""
    return Cutoff(
        stages=tuple(stage.name for stage in collection.stages),
        score=found.score,
        threshold=found.threshold,
        m=handing.m if handing.calibration is None else "auto",
        rejects=share,
        caught=found.caught,
        caught_at_least=found.caught_at_least,
        confidence=confidence,
        queries=found.queries,
        tested=found.tested,
        of=texts.of,
        against=texts.against,
        images=len(collection),
    )


def _scores(
    collection: Collection,
    texts: Sequence[str],
    hidden: Sequence[frozenset[str]],
    handing: Handing,
    progress: Callable[[int], object] | None,
) -> dict[Score, Values]:
    """Every score of each text, searched without what is hidden from it: [n] each."""
    parts: list[list[Values]] = []
    for start in range(0, len(texts), _BATCH):
        some, without = texts[start : start + _BATCH], hidden[start : start + _BATCH]
        parts.append(_scores_of_some(collection, some, without, handing))
        if progress is not None:
            progress(len(some))
    every = [np.concatenate(each) for each in zip(*parts, strict=True)]
    return dict(zip(SCORES, every, strict=True))


def _scores_of_some(
    collection: Collection,
    texts: Sequence[str],
    hidden: Sequence[frozenset[str]],
    handing: Handing,
) -> list[Values]:
    cascade = collection.cascade
    contents, last = cascade.catalogue.contents, cascade.later[-1]
    to_first, to_last = collection.encode_texts(texts)
    places = [
        [at for key in keys if (at := cascade.catalogue.position(key)) is not None]
        for keys in hidden
    ]
    wanted = handing.deepest + max(map(len, places), default=0)
    ranking = contents.rows.ranked(to_first, wanted, contents.hidden)
    candidates = without(ranking, places, handing.deepest)
    if handing.calibration is not None:
        rated = Rated.of(handing.calibration, contents, candidates, to_first)
        columns = torch.arange(candidates.positions.shape[1])
        within = columns < rated.candidates()[:, None]
        positions = candidates.positions.where(within, NOTHING)
    else:
        positions = candidates.positions
    last.encode_absent(positions[positions != NOTHING].unique().tolist(), cascade.catalogue, None)
    held = last.store.held
    found = rank_candidates(positions, held.rows.embeddings, held.slots(positions), to_last)
    best = best_scores(found)
    return [matching_scores(score, best, contents, to_first) for score in SCORES]


def without(ranking: Ranking, hidden: Sequence[Sequence[int]], wanted: int) -> Ranking:
    """A ranking [b, c] without some positions of each query: [b, wanted], or fewer columns.

    `NOTHING` with the score -inf stands at the end of a row that has fewer.
    """
    kept = torch.ones(ranking.positions.shape, dtype=torch.bool)
    for query, places in enumerate(hidden):
        if places:
            kept[query] = ~torch.isin(ranking.positions[query], torch.tensor(places))
    columns = kept.byte().argsort(dim=1, descending=True, stable=True)[:, :wanted]
    there = kept.gather(1, columns)
    return Ranking(
        ranking.positions.gather(1, columns).where(there, NOTHING),
        ranking.scores.gather(1, columns).where(there, float("-inf")),
    )


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
