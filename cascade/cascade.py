"""The cascade: the first stage ranks all images, later stages look at fewer and fewer of them.

What a user embeds in their own program. A later stage encodes an image the first time a query
brings it up and never again (arXiv 2303.15595), so the cost of a collection is that
of the first stage plus that of the images that anyone ever asks for. A stage that resumes from an
earlier one (`cascade.resume`) takes that one's states instead of images.

Any number of threads may index and search at once. Whatever they do becomes visible as a whole or
not at all (`cascade.searching.catalogue`, `cascade.searching.embeddings`), also where one of them
fails or is interrupted.
"""

import time
from collections.abc import Hashable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice, repeat
from typing import TypeAlias, TypeVar, cast

import torch
from torch import Tensor

from cascade.calibrated.calibration import Calibration, Candidates, needed
from cascade.calibrated.cutoff import Cutoff
from cascade.calibrated.margins import Values, best_scores, matching_scores
from cascade.calibrated.rating import Rated
from cascade.cost import checked_m, return_fractions
from cascade.searching.catalogue import Catalogue, Contents, Offered
from cascade.searching.embeddings import EmbeddingStore, Held
from cascade.searching.encoding import Encoding, OneAtATime, Outcome, encode_each, encode_queries
from cascade.searching.later import LaterStage
from cascade.searching.ranking import NOTHING, Ranking, rank_all, rank_candidates
from cascade.searching.states import STATE_LIMIT, Resuming, States, StateStore, resumed_from
from cascade.searching.steps import Step, Watch
from cascade.stages.images import ImageSource
from cascade.stages.stage import Encoder

_QUERIES_AT_ONCE = 1024

_Limits: TypeAlias = Sequence[int | Tensor]
"""How many candidates each stage but the last hands on: one number, or one for each query [b]."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A result: the image's key, its cosine similarity, and the stage (0 = first) that gave it.

    The score is the dot product of the two embeddings, which is their cosine if they have length 1
    as those of a `Stage` have. It is exact to the last digit of float32.

    Attributes:
        key: of the image.
        score: its cosine similarity.
        stage: that gave the score.
        probability: the calibrated chance that the image is among the full tower's k best, which
            says nothing of how well these match; None: nothing is calibrated for this k.
    """

    key: Hashable
    score: float
    stage: int
    probability: float | None = field(default=None, compare=False)


class Hits(list[Hit]):
    """The hits of a query, best first.

    Attributes:
        matches: whether the best one scores as that of a query that something matches; False says
            that nothing matches well. None: no cutoff is known for such a search. What it says is
            of a single text: examples and sums of texts score otherwise.
    """

    def __init__(self, hits: Iterable[Hit] = (), matches: bool | None = None) -> None:
        super().__init__(hits)
        self.matches = matches


class Cascade:
    """Image search with stages ordered cheap to expensive.

    Any thread may index and search. Each stage is given images by one thread at a time, and texts
    by one. A cascade can be pickled if its stages, keys and images can: do so while
    no thread changes it.

    Attributes:
        stages: the stages.
        m: candidates handed from each stage to the next; at most, if `auto`.
        auto: whether each query has as many as it needs.
        calibration: how the stages agree, if that was learnt.
        cutoff: below what score nothing matches, if that was learnt.
    """

    def __init__(
        self,
        stages: Sequence[Encoder],
        m: Candidates | None = None,
        batch_size: int = 32,
        state_limit: int = STATE_LIMIT,
        precision: str = "float32",
        calibration: Calibration | None = None,
        cutoff: Cutoff | None = None,
    ):
        """Join stages.

        Args:
            stages: cheap to expensive, `Stage`s or anything with the members of `Encoder`;
                their embeddings may have different dimensions. One is an ordinary search. A
                stage may resume from an earlier one, whose states are then kept until it has.
            m: candidates handed on, one number for each stage but the last, strictly decreasing;
                by default [50] if there are two stages. "auto": as many as each query needs by
                the calibration.
            batch_size: images given to a stage at once.
            state_limit: bytes that states kept for stages that resume may take, by default 2 GiB.
                Beyond that the oldest are dropped (`states_dropped`); their images
                are opened again when a query brings them up, and encoded from the start.
            precision: what embeddings are kept in, float32 or float16; the stages' are numbers of
                that type (`cascade.collecting.rounding`).
            calibration: what was learnt of two stages, if anything: hits then have probabilities,
                as long as the collection is about as large as it was.
            cutoff: what was learnt of whether anything matches, if anything.

        Raises:
            ValueError: there is no stage, m doesn't fit them or is "auto" without a calibration of
                these stages, a number is out of range, or a stage resumes from one that isn't
                before it.
        """
        if not stages:
            raise ValueError("a cascade needs at least one stage")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if state_limit < 0:
            raise ValueError(f"state_limit is a number of bytes, got {state_limit}")
        self.stages = tuple(stages)
        self.calibration = calibration
        self.cutoff = cutoff
        self.auto = m == "auto"
        if m == "auto":
            m = [needed(calibration, self._names).depth]
        if m is None:
            m = [50] if len(stages) == 2 else []
        self.m = checked_m(m, len(stages))
        self._batch_size = batch_size
        encoders = {id(stage): OneAtATime(stage) for stage in stages}
        self._encoders = [encoders[id(stage)] for stage in stages]
        sources = resumed_from(stages)
        resumed = [place for place in sources if place is not None]
        self._states = {place: StateStore(state_limit // len(resumed)) for place in resumed}
        self._encodings = [_encoding(self.stages, place, sources) for place in range(len(stages))]
        self._later = [
            LaterStage(
                place=place,
                asked=self._encoders[place],
                encoding=self._encodings[place],
                batch_size=batch_size,
                resumes_from=None if source is None else self._states[source],
                keeps=self._states.get(place),
                store=EmbeddingStore(precision),
            )
            for place, source in enumerate(sources[1:], start=1)
        ]
        # after the later stages, so that a pickled cascade knows all images that these have encoded
        opened_later = None in sources[1:]
        self._catalogue = Catalogue(self._states.get(0), opened_later, precision)

    def learn(self, m: Candidates, calibration: Calibration | None, cutoff: Cutoff | None) -> None:
        """Take over what was learnt of the stages since, for searches that begin from now on.

        Args:
            m: as of `Cascade`.
            calibration: as of `Cascade`.
            cutoff: as of `Cascade`.

        Raises:
            ValueError: m doesn't fit the stages, or is "auto" without a calibration of them.
        """
        numbers = [needed(calibration, self._names).depth] if m == "auto" else m
        checked = checked_m(numbers, len(self.stages))
        self.calibration, self.cutoff = calibration, cutoff
        self.m, self.auto = checked, m == "auto"

    @property
    def catalogue(self) -> Catalogue:
        """The images, with the first stage's embeddings."""
        return self._catalogue

    @property
    def later(self) -> Sequence[LaterStage]:
        """The stages after the first, with what they have encoded."""
        return self._later

    def __len__(self) -> int:
        """Number of images that can be found."""
        return len(self._catalogue.contents)

    def __contains__(self, key: Hashable) -> bool:
        """Whether an image of this key can be found."""
        return key in self._catalogue

    @property
    def skipped(self) -> dict[Hashable, str]:
        """Why images have no embedding, by their keys: those that a stage could not encode.

        An image that the first stage skipped can be indexed again under its key, one that a later
        stage skipped is tried again the next time a query brings it up.
        """
        later = [stage.store.failures for stage in self._later]
        contents = self._catalogue.contents
        failed = {
            contents.keys[at]: reason
            for failures in later
            for at, reason in failures.items()
            if at not in contents.gone
        }
        return dict(contents.skipped) | failed

    @property
    def encoded(self) -> tuple[int, ...]:
        """Number of images that each stage has encoded so far."""
        gone = self._catalogue.contents.hidden
        later = [len(stage.store) - int((~stage.store.absent(gone)).sum()) for stage in self._later]
        return len(self), *later

    @property
    def state_bytes(self) -> int:
        """What the states kept for stages that resume take in memory now."""
        return sum(kept.nbytes for kept in self._states.values())

    @property
    def states_dropped(self) -> int:
        """Number of images whose states were dropped, or never kept, because of `state_limit`."""
        return sum(kept.dropped for kept in self._states.values())

    @property
    def f_measured(self) -> tuple[float, ...]:
        """Share of the collection that each later stage has encoded so far.

        Raises:
            ValueError: nothing is indexed.
        """
        return return_fractions(self.encoded)

    def index(self, images: Iterable[ImageSource], keys: Iterable[Hashable] | None = None) -> int:
        """Add images to the collection; the first stage encodes them all, batch by batch.

        Images are kept as given and opened again when a later stage needs them, so give paths or
        functions rather than pictures where there are many. Where every later stage resumes,
        pictures are not kept as long as their states are. An image that can't be read, or whose
        embedding isn't finite, is left out and named in `skipped` with the reason. More can be
        indexed at any time.

        A batch is added as a whole or not at all. If this raises or is interrupted, the batches
        before are indexed: `key in cascade` says which images are.

        Args:
            images: pictures, paths, bytes or functions that return one of these.
            keys: what hits name them by, one per image, all different; by default the path as a
                string, and for other images their number in order of arrival.

        Returns:
            Number of images added.

        Raises:
            ValueError: a key is in use already, there is not one key per image, or the first stage
                doesn't give one embedding of the same dimension for each.
        """
        return sum(map(self._add, _batches(self._offered(images, keys), self._batch_size)))

    def remove(self, keys: Iterable[Hashable]) -> int:
        """Remove images; their keys are free for others.

        Their embeddings stay in memory as long as this cascade.

        Returns:
            Number of images removed: keys that aren't there are none.
        """
        places = {self._catalogue.position(key) for key in keys} - {None}
        self._catalogue.remove(place for place in places if place is not None)
        return len(places)

    def search(self, text: str, k: int, refined: bool = False) -> Hits:
        """The k best images for a query, best first; see `search_many`."""
        return self.search_many([text], k, refined)[0]

    def search_many(self, texts: Sequence[str], k: int, refined: bool = False) -> list[Hits]:
        """The k best images for each of many queries, as if searched one after the other.

        Given the embeddings, the results are exactly those of single searches; a tower's own
        embeddings differ in the last digits with the batch that they are computed in.

        The last stage's ranking of its candidates comes first; if k is larger, what earlier
        stages ranked below follows in their order. Equal scores keep the order of the stage
        before, and in the first stage that of indexing. Queries are encoded in batches, a text
        that several stages' common text tower encodes or that is asked twice only once. An image
        that a later stage can't encode when it comes up isn't a result of that query; the next
        one tries again.

        Args:
            texts: the queries.
            k: results wanted, at least 1; fewer come if the collection is smaller.
            refined: let the last stage also rank whatever else it has encoded so far, for other
                queries or ahead. The more that is, the closer are the hits to those of the last
                stage alone; they then depend on what was asked before.

        Returns:
            For each query its hits.

        Raises:
            ValueError: k isn't a positive whole number, `texts` is one string, or a stage gives
                embeddings of another number or dimension than it must, or of a query such that are
                not finite.
        """
        if isinstance(texts, str):
            raise ValueError("search_many takes a list of queries; for a single one use search")
        _check_k(k)
        if not len(texts) or not len(self):
            return [Hits() for _ in texts]
        return self.search_embeddings(self.encode_texts(texts), k, refined)

    def encode_texts(self, texts: Sequence[str]) -> list[Tensor]:
        """The embeddings of queries, float32 [Q, d] of each stage: what `search_many` looks for.

        Raises:
            ValueError: a stage gives embeddings of another number than it must, or such that are
                not finite.
        """
        return encode_queries(self._encoders, texts)

    def encode_examples(self, images: Sequence[ImageSource]) -> list[Tensor]:
        """The embeddings of images to search with, float32 [n, d] of each stage.

        Raises:
            UnreadableImage: one of them can't be opened.
        """
        by_stage: dict[int, Tensor] = {}
        for locked in self._encoders:
            if id(locked) not in by_stage:
                with locked.images:
                    by_stage[id(locked)] = locked.encoder.encode_images(images)
        return [by_stage[id(locked)] for locked in self._encoders]

    def search_embeddings(
        self,
        queries: Sequence[Tensor],
        k: int,
        refined: bool = False,
        watch: Watch | None = None,
        m: Candidates | None = None,
    ) -> list[Hits]:
        """The k best images for each of Q queries that are embedded already; see `search_many`.

        Args:
            queries: of each stage float32 [Q, d].
            k: results wanted, at least 1; fewer come if the collection is smaller.
            refined: as of `search_many`.
            watch: told what each stage did, of many queries batch by batch.
            m: candidates handed on for these queries, "auto": as many as each needs; by default
                the cascade's own.

        Raises:
            ValueError: k isn't a positive whole number, m doesn't fit the stages, or there is not
                one tensor of Q queries of the right dimension for each stage; m is "auto" and the
                calibration isn't for such stages, so many images, or this k.
        """
        contents = self._catalogue.contents
        m = self._checked(contents, k, m)
        if len(queries) != len(self.stages) or len({len(each) for each in queries}) > 1:
            raise ValueError(
                f"{len(self.stages)} stages need as many tensors of the same number of queries, "
                f"got {[list(each.shape) for each in queries]}"
            )
        if not len(contents):
            return [Hits() for _ in queries[0]]
        answers: list[Hits] = []
        for start in range(0, len(queries[0]), _QUERIES_AT_ONCE):
            chunk = [embedded[start : start + _QUERIES_AT_ONCE] for embedded in queries]
            answers += self._answer(contents, chunk, int(k), m, refined, watch)
        return answers

    def handed_on(self, queries: Tensor, k: int, m: Candidates | None = None) -> list[Tensor]:
        """Which images the first stage hands on for queries, without any being encoded.

        Args:
            queries: float32 [Q, d] of the first stage.
            k: as of `search_embeddings`.
            m: as of `search_embeddings`.

        Returns:
            Positions in the catalogue, int64 [c] for each query: its candidates, best first.

        Raises:
            ValueError: as of `search_embeddings`, or there is only one stage.
        """
        if len(self.stages) == 1:
            raise ValueError("a single stage hands no candidates on")
        contents = self._catalogue.contents
        m = self._checked(contents, k, m)
        if not len(contents):
            return [torch.empty(0, dtype=torch.int64) for _ in queries]
        found: list[Tensor] = []
        for chunk in queries.split(_QUERIES_AT_ONCE):
            start = self._start(contents, chunk, int(k), m)
            for positions in _handed_on([start.ranking], start.limits, 1):
                found.append(positions[positions != NOTHING])
        return found

    def encode_first(self, images: Sequence[ImageSource]) -> list[Outcome]:
        """What the first stage makes of a batch of images, which are not added.

        Raises:
            ValueError: it doesn't give one embedding of the same dimension for each.
        """
        with self._encoders[0].images:
            return encode_each(self._encodings[0], images, None, 0)

    @property
    def _stores(self) -> dict[int, EmbeddingStore]:
        """What each later stage has encoded."""
        return {stage.place: stage.store for stage in self._later}

    @property
    def _known(self) -> set[Hashable]:
        """The keys of all images that can be found."""
        contents = self._catalogue.contents
        known = enumerate(contents.keys.first(contents.rows.count))
        return {key for at, key in known if at not in contents.gone}

    def _offered(
        self, images: Iterable[ImageSource], keys: Iterable[Hashable] | None
    ) -> Iterator[Offered]:
        if keys is None:
            yield from map(Offered.without_key, images)
            return
        keys = list(keys)
        self._catalogue.refuse_used(keys)
        if isinstance(images, Sized) and len(images) != len(keys):
            raise ValueError(f"{len(images)} images came with {len(keys)} keys")
        number = 0
        for number, image in enumerate(images, start=1):
            if number > len(keys):
                raise ValueError(f"more than {len(keys)} images came with {len(keys)} keys")
            yield Offered(image, named=True, key=keys[number - 1])
        if number < len(keys):
            raise ValueError(f"{number} images came with {len(keys)} keys")

    def _add(self, batch: list[Offered]) -> int:
        self._catalogue.refuse_used([offer.key for offer in batch if offer.named])
        outcomes = self.encode_first([offer.image for offer in batch])
        return self._catalogue.add(batch, outcomes)

    @property
    def _names(self) -> list[str]:
        return [stage.name for stage in self.stages]

    def _answer(
        self,
        contents: Contents,
        queries: list[Tensor],
        k: int,
        m: Candidates,
        refined: bool,
        watch: Watch | None,
    ) -> list[Hits]:
        begun = time.perf_counter()
        start = self._start(contents, queries[0], k, m)
        rankings, limits, rated = [start.ranking], start.limits, start.rated
        if rated is not None and k != rated.calibration.k:
            rated = None  # it chose m, but says nothing of so many hits
        chances = [None if rated is None else rated.margins.chances]
        if watch is not None:
            best = _best(contents, rankings[0], k)
            took, how = time.perf_counter() - begun, contents.rows.how
            watch(Step(0, len(contents), 0, 0.0, took, best, how))
        for stage in self._later:
            candidates = handed_on = _handed_on(rankings, limits, stage.place)
            asked = queries[stage.place]
            positions = candidates[candidates != NOTHING].unique().tolist()
            begun, before = time.perf_counter(), len(stage.store)
            stage.encode_absent(positions, self._catalogue, asked.shape[1])
            encoded, held = time.perf_counter(), stage.store.held
            if refined and stage is self._later[-1]:
                candidates = _with_held(candidates, held, asked, k, contents)
            slots = held.slots(candidates)
            rankings.append(rank_candidates(candidates, held.rows.embeddings, slots, asked))
            chances.append(
                None
                if rated is None
                else rated.of_last(handed_on, held, asked, rankings[-1], refined)
            )
            if watch is not None:
                seconds = (encoded - begun, time.perf_counter() - encoded)
                best = _best(contents, rankings[-1], k)
                new = held.rows.count - before
                images = int((candidates != NOTHING).sum(dim=1).max())
                watch(Step(stage.place, images, new, *seconds, best))
        verdicts = self._verdicts(contents, queries[0], rankings[-1], m)
        found = self._hits(contents, rankings, chances, k, limits)
        return [Hits(hits, matches) for hits, matches in zip(found, verdicts, strict=True)]

    def _verdicts(
        self, contents: Contents, queries: Tensor, last: Ranking, m: Candidates
    ) -> Sequence[bool | None]:
        """Whether anything matches each query, by what the last stage ranked first for it."""
        cutoff, nothing = self.cutoff, [None] * len(queries)
        if cutoff is None or not cutoff.serves(m):
            return nothing
        if cutoff.unfit(self._names, len(contents)) is not None:
            return nothing
        scores = matching_scores(cutoff.score, best_scores(last), contents, queries)
        return [cutoff.matches(score) for score in scores.tolist()]

    def _start(self, contents: Contents, queries: Tensor, k: int, m: Candidates) -> "_Start":
        """What the first stage answers to queries [b, d], and how many candidates it hands on."""
        calibration = self._usable(contents, k, m)
        depth = 0 if calibration is None else calibration.depth
        most = (depth,) if m == "auto" else tuple(m)
        wanted = max(k, most[0]) if most else k
        deep = self._rank_first(contents, queries, max(wanted, depth))
        ranking = Ranking(deep.positions[:, :wanted], deep.scores[:, :wanted])
        if calibration is None:
            return _Start(ranking, most, None)
        rated = Rated.of(calibration, contents, deep, queries)
        return _Start(ranking, [rated.candidates()] if m == "auto" else most, rated)

    def _checked(self, contents: Contents, k: int, m: Candidates | None) -> Candidates:
        """How many candidates are handed on, if that and k fit.

        Raises:
            ValueError: otherwise.
        """
        _check_k(k)
        if m is None:
            m = "auto" if self.auto else self.m
        if m != "auto":
            return checked_m(m, len(self.stages))
        if len(contents):
            needed(self.calibration, self._names, len(contents), k)
        return m

    def _usable(self, contents: Contents, k: int, m: Candidates) -> Calibration | None:
        """The calibration, if it is needed or says something about these hits."""
        calibration = self.calibration
        if calibration is None or m == "auto":
            return calibration
        fits = calibration.unfit(self._names, len(contents)) is None
        return calibration if fits and k == calibration.k else None

    def _rank_first(self, contents: Contents, queries: Tensor, wanted: int) -> Ranking:
        return contents.rows.ranked(queries, wanted, contents.hidden)

    def _hits(
        self,
        contents: Contents,
        rankings: Sequence[Ranking],
        chances: Sequence[Values | None],
        k: int,
        m: _Limits,
    ) -> list[list[Hit]]:
        """Join each query's rankings, last stage first, until there are k hits."""
        hits: list[list[Hit]] = [[] for _ in rankings[0].positions]
        done: list[set[int]] = [{NOTHING} for _ in hits]
        for stage in reversed(range(len(rankings))):
            # All of a later stage's list may be needed: the lists of earlier ones hold it too.
            positions = rankings[stage].positions.tolist()
            scores = rankings[stage].scores.tolist()
            chance = _each(chances[stage], len(hits))
            for found, seen, *ranked in zip(hits, done, positions, scores, chance, strict=True):
                for at, score, probability in zip(*ranked, strict=False):
                    if len(found) < k and at not in seen:
                        found.append(Hit(contents.keys[at], score, stage, probability))
            if stage:  # all that this stage was handed, so also what it couldn't read
                handed_on = _handed_on(rankings, m, stage).tolist()
                for seen, ranked_here, handed in zip(done, positions, handed_on, strict=True):
                    seen.update(ranked_here, handed)
        return hits


@dataclass(frozen=True)
class _Start:
    """The first stage's ranking, what is handed on of it and later, and what its scores say."""

    ranking: Ranking
    limits: _Limits
    rated: Rated | None


def _each(chances: Values | None, queries: int) -> list[Iterable[float | None]]:
    """Each query's chances, and then None."""
    if chances is None:
        return [repeat(None)] * queries
    return [chain(row, repeat(None)) for row in chances.tolist()]


def _with_held(
    candidates: Tensor, held: Held, queries: Tensor, k: int, contents: Contents
) -> Tensor:
    """Candidates [b, c], and after them what else of a stage's own k best each query has.

    `NOTHING` stands where a candidate would come twice.
    """
    rows, gone = held.rows, held.slots(contents.hidden)
    gone = gone[gone >= 0].sort().values
    best = rank_all(rows.embeddings, queries, k, rows.longest, gone)
    others = torch.from_numpy(held.positions)[best.positions]
    others = others.where(others < contents.rows.count, NOTHING).sort(dim=1).values
    twice = (others[:, :, None] == candidates[:, None, :]).any(dim=2)
    return torch.cat([candidates, others.where(~twice, NOTHING)], dim=1)


def _handed_on(rankings: Sequence[Ranking], m: _Limits, stage: int) -> Tensor:
    """Positions [b, c] that a later stage is handed; `NOTHING` where a query has fewer."""
    limit, positions = m[stage - 1], rankings[stage - 1].positions
    if isinstance(limit, int):
        return positions[:, :limit]
    positions = positions[:, : int(limit.max())]
    return positions.where(torch.arange(positions.shape[1]) < limit[:, None], NOTHING)


def _best(contents: Contents, ranking: Ranking, k: int) -> list[list[tuple[Hashable, float]]]:
    """The keys and scores of the first k of each query."""
    return [
        [(contents.keys[at], score) for at, score in zip(*ranked, strict=True) if at != NOTHING][:k]
        for ranked in zip(ranking.positions.tolist(), ranking.scores.tolist(), strict=True)
    ]


def _check_k(k: int) -> None:
    if int(k) != k or k < 1:
        raise ValueError(f"k must be a positive whole number, got {k}")


_Item = TypeVar("_Item")


def _batches(items: Iterator[_Item], size: int) -> Iterator[list[_Item]]:
    while batch := list(islice(items, size)):
        yield batch


def _encoding(stages: Sequence[Encoder], place: int, sources: Sequence[int | None]) -> Encoding:
    """How a stage encodes images that it opens: with states if a later one resumes from it."""
    if place in sources:
        resuming = cast(Resuming, stages[sources.index(place)])  # as `resumed_from` found
        return partial(_with_states, resuming)
    return partial(_without_states, stages[place])


def _with_states(resuming: Resuming, images: Sequence[ImageSource]) -> tuple[Tensor, States]:
    return resuming.encode_first(images)


def _without_states(stage: Encoder, images: Sequence[ImageSource]) -> tuple[Tensor, None]:
    return stage.encode_images(images), None
