"""Making the lists of a first stage, and measuring what looking into some of them finds.

The recall of an index is a figure of a collection and its queries, not of the index: so it is
measured here, on images of the collection and on its captions, against the exact ranking, and as
few lists are looked into as the target allows.
"""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from statistics import median
from typing import TypeAlias

from torch import Tensor

from cascade.inverted.record import Depth, Inverted
from cascade.inverted.rows import StoredRows
from cascade.measuring.finding import others
from cascade.searching.ranking import Ranking
from cascade.storing.store import Lists

TARGET = 0.99
"""Share of the exact results that is to be found, on average over the queries of each kind."""
QUERIES = 200
"""Queries of each kind that it is measured on."""

_RESULTS = (10, 100, 1000)
_OUTSIDE = 20  # what is in no list is looked at by every search: up to a twentieth may be
_GROWTH = 2.0  # by how much a collection grows or shrinks until its lists are made anew
_CHANGE = 1.1  # and until their recall is measured anew

Said: TypeAlias = Callable[[str], object]


@dataclass(frozen=True)
class Sampled:
    """Queries that recall is measured on.

    Attributes:
        kind: what they are: images, captions.
        embeddings: by the first stage, float32 [q, d].
        own: positions [q] of the images that are queries, which are not among their own results.
    """

    kind: str
    embeddings: Tensor
    own: Tensor | None = None


@dataclass(frozen=True)
class Storing:
    """What lists are made of.

    Attributes:
        rows: the embeddings of the images that there are.
        gone: positions of those that were removed, int64, ascending.
        generation: of the collection's tables.
        writing: the right to write, as of a store.
    """

    rows: StoredRows
    gone: Tensor
    generation: int
    writing: Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Terms:
    """How recall is measured.

    Attributes:
        target: share of the exact results that is to be found, in (0, 1].
        results: ascending: for how many results it is measured.
        queries: of each kind, on which it is; fewer where there aren't as many.
    """

    target: float
    results: Sequence[int]
    queries: int = QUERIES

    def __post_init__(self) -> None:
        """Refuse a target that is out of range."""
        if not 0 < self.target <= 1:
            raise ValueError(f"recall is in (0, 1], got a target of {self.target}")
        if self.queries < 1:
            raise ValueError(f"recall is measured on at least one query, not {self.queries}")


def lists_for(embeddings: int) -> int:
    """How many lists so many embeddings are put into: about √n.

    So both parts of a search, all centres and the lists that are looked into, grow alike.
    """
    return max(1, round(math.sqrt(embeddings)))


def depths_for(most: Sequence[int], images: int) -> list[int]:
    """For how many results recall is measured: those that a collection uses, and round numbers."""
    return sorted({min(number, images) for number in (*_RESULTS, *most) if number})


def brought_up_to_date(
    storing: Storing, terms: Terms, queries: Callable[[], Sequence[Sampled]], said: Said
) -> Inverted | None:
    """Make lists, extend them, or leave them, as is needed, and measure them if they have changed.

    Whatever cuts it off, what is there then is used as far as it was measured, and the next call
    goes on from it.

    Args:
        storing: what lists are made of.
        terms: how recall is measured.
        queries: gives what it is measured on.
        said: told what is done.

    Returns:
        What is known of the lists; None: there is nothing to search.
    """
    rows = storing.rows
    images = rows.count - len(storing.gone)
    if not images:
        return None
    with storing.writing():
        known = _kept(storing, terms.target, said)
    if _unmeasured(known, images, terms):
        asked = queries()
        depths = _measured(storing, asked, known.lists, terms, said)
        counts = {each.kind: len(each.embeddings) for each in asked}
        known = replace(known, images=images, target=terms.target, queries=counts, depths=depths)
        with storing.writing():
            rows.measured.write(known)
    return known


def _kept(storing: Storing, target: float, said: Said) -> Inverted:
    """Lists that hold the embeddings, but for a few."""
    source, file = storing.rows.source, storing.rows.measured
    (embeddings, _), lists, known = source.shape(), source.lists(), file.current()
    if known is None or lists is None or _outgrown(known, lists, embeddings):
        number = lists_for(embeddings)
        said(f"making {number:,} lists of {embeddings:,} embeddings")
        begun = time.perf_counter()
        source.make_lists(number)
        seconds = time.perf_counter() - begun
        known = Inverted(storing.generation, number, 0, embeddings, target, {}, (), seconds)
        file.write(known)
    elif lists.outside * _OUTSIDE > lists.rows:
        said(f"taking {lists.outside:,} embeddings into lists")
        source.extend_lists()
    return known


def _outgrown(known: Inverted, lists: Lists, embeddings: int) -> bool:
    """Whether lists are to be made anew for so many embeddings."""
    if lists.number != known.lists:
        return True
    return not known.made_of / _GROWTH <= embeddings <= known.made_of * _GROWTH


def _unmeasured(known: Inverted, images: int, terms: Terms) -> bool:
    """Whether recall is to be measured anew, of so many images."""
    if known.target != terms.target:
        return True
    if not set(terms.results) <= {depth.results for depth in known.depths}:
        return True
    return not known.images / _CHANGE <= images <= known.images * _CHANGE


def _measured(
    storing: Storing,
    queries: Sequence[Sampled],
    lists: int,
    terms: Terms,
    said: Said,
) -> tuple[Depth, ...]:
    """The fewest lists that reach the target, for each number of results."""
    rows, gone = storing.rows, storing.gone
    said("ranking all images for the queries that recall is measured on")
    truths = []
    for each in queries:
        wanted = terms.results[-1] + (each.own is not None)
        exact = rows.ranked_exactly(each.embeddings, wanted, gone)
        truths.append(_Truth(each, others(exact, each.own, terms.results[-1]).scores))
    trials = _Trials(rows, gone, truths, lists)
    found = []
    least = 1
    for number in terms.results:
        said(f"measuring recall@{number:,}")
        found.append(trials.fewest(number, terms.target, least))
        least = found[-1].probes
    return tuple(found)


@dataclass(frozen=True)
class _Truth:
    """Queries, and the scores of their exact results, float32 [q, c], descending."""

    sampled: Sampled
    scores: Tensor

    def recall(self, found: Tensor, results: int) -> float:
        """The share of so many results that scores [q, c] of what was found say are right.

        What scores as the last of the exact results is as good as that.
        """
        results = min(results, self.scores.shape[1])
        least = self.scores[:, results - 1 : results]
        return float((found[:, :results] >= least).sum()) / (len(found) * results)


class _Trials:
    """Recall by how many lists are looked into; what was measured is remembered."""

    def __init__(
        self, rows: StoredRows, gone: Tensor, truths: Sequence[_Truth], lists: int
    ) -> None:
        self._rows = rows
        self._gone = gone
        self._truths = truths
        self._lists = lists
        self._known: dict[tuple[int, int], Depth] = {}

    def fewest(self, results: int, target: float, least: int) -> Depth:
        """The fewest lists that reach a target, to a sixteenth; all, where none does.

        Recall hardly ever falls with more lists, so they are halved in between; nor does it rise
        with more results, so there are at `least` as many as for fewer.
        """
        low, high = least - 1, least
        while self._at(results, high).least < target and high < self._lists:
            low, high = high, min(2 * high, self._lists)
        while high - low > max(1, high // 16):
            middle = (low + high) // 2
            if self._at(results, middle).least >= target:
                high = middle
            else:
                low = middle
        return self._at(results, high)

    def _at(self, results: int, probes: int) -> Depth:
        if (results, probes) not in self._known:
            self._known[results, probes] = self._measure(results, probes)
        return self._known[results, probes]

    def _measure(self, results: int, probes: int) -> Depth:
        seconds: list[float] = []
        recall = {}
        for truth in self._truths:
            own = truth.sampled.own
            wanted = min(results + (own is not None), self._rows.count - len(self._gone))
            found = []
            for query in truth.sampled.embeddings.split(1):
                begun = time.perf_counter()
                ranking = self._rows.probed(query, wanted, self._gone, probes, self._lists)
                seconds.append(time.perf_counter() - begun)
                found.append(ranking)
            scores = others(Ranking.joined(found), own, results).scores
            recall[truth.sampled.kind] = truth.recall(scores, results)
        return Depth(results, probes, recall, round(1000 * median(seconds), 3))
