"""The cascade: the first stage ranks all images, later stages look at fewer and fewer of them.

What a user embeds in their own program. A later stage encodes an image the first time a query
brings it up and never again (arXiv 2303.15595), so the cost of a collection is that
of the first stage plus that of the images that anyone ever asks for. A stage that resumes from an
earlier one (`cascade.resume`) takes that one's states in the place of images.
"""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from os import PathLike
from typing import TypeAlias, TypeVar

from torch import Tensor

from cascade.cost import checked_m, return_fractions
from cascade.images import ImageSource, encode_readable
from cascade.ranking import NOTHING, Ranking, rank_all, rank_candidates
from cascade.stage import Encoder
from cascade.states import States, StateStore, resumed_from
from cascade.store import EmbeddingStore

_Encoded: TypeAlias = tuple[Tensor, States | None]
_SCORES_AT_ONCE = 1 << 22  # 16 MB of scores, and four times that while they are ranked


@dataclass(frozen=True, slots=True)
class Hit:
    """A result: the image's key, its cosine similarity, and the stage (0 = first) that gave it."""

    key: Hashable
    score: float
    stage: int


class Cascade:
    """Image search with stages ordered cheap to expensive.

    Attributes:
        stages: the stages.
        m: candidates handed from each stage to the next.
    """

    def __init__(
        self, stages: Sequence[Encoder], m: Sequence[int] | None = None, batch_size: int = 32
    ):
        """Join stages.

        Args:
            stages: cheap to expensive, `Stage`s or anything with the members of `Encoder`;
                their embeddings may have different dimensions. One is an ordinary search. A
                stage may resume from an earlier one, whose states are then kept until it has.
            m: candidates handed on, one number for each stage but the last, strictly decreasing;
                [50] if there are two stages and nothing else is said.
            batch_size: images given to a stage at once.

        Raises:
            ValueError: there is no stage, m doesn't fit them, or one resumes from a stage that
                isn't before it.
        """
        if not stages:
            raise ValueError("a cascade needs at least one stage")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if m is None:
            m = [50] if len(stages) == 2 else []
        self.stages = tuple(stages)
        self.m = checked_m(m, len(stages))
        self._batch_size = batch_size
        self._stores = [EmbeddingStore() for _ in stages]
        self._resumed_from = resumed_from(stages)
        self._states = {at: StateStore() for at in self._resumed_from if at is not None}
        self._opened_later = None in self._resumed_from[1:]
        self._keys: list[Hashable] = []
        self._sources: list[ImageSource] = []
        self._known: set[Hashable] = set()
        self._skipped: dict[Hashable, None] = {}
        self._offered = 0

    def __len__(self) -> int:
        """Number of images that can be found."""
        return len(self._keys)

    @property
    def skipped(self) -> tuple[Hashable, ...]:
        """Keys of the images that couldn't be read, by whichever stage."""
        return tuple(self._skipped)

    @property
    def encoded(self) -> tuple[int, ...]:
        """Number of images that each stage has encoded so far."""
        return tuple(len(store) for store in self._stores)

    @property
    def state_bytes(self) -> int:
        """What the states kept for stages that resume take in memory now."""
        return sum(kept.nbytes for kept in self._states.values())

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
        functions rather than pictures where there are many. Where every later stage resumes they
        are not kept at all, but their states are. An image that can't be read is left out and
        named in `skipped`. More can be indexed at any time.

        Args:
            images: pictures, paths, bytes or functions that return one of these.
            keys: what hits name them by, one an image, all different; by default the path as a
                string, and for other images their number in order of arrival.

        Returns:
            Number of images added.

        Raises:
            ValueError: a key is in use already or not one key an image. Batches before the
                offending one stay indexed.
        """
        before = len(self)
        for batch in _batches(self._named(images, keys), self._batch_size):
            self._add(batch)
        return len(self) - before

    def search(self, text: str, k: int) -> list[Hit]:
        """The k best images for a query, best first; see `search_many`."""
        return self.search_many([text], k)[0]

    def search_many(self, texts: Sequence[str], k: int) -> list[list[Hit]]:
        """The k best images for each of many queries, as if searched one after the other.

        Given the embeddings, the results are exactly those of single searches; a tower's own
        embeddings differ in the last digits with the batch that they are computed in.

        The last stage's ranking of its candidates comes first; if k is larger, what earlier
        stages ranked below follows in their order. Equal scores keep the order of the stage
        before, and in the first stage that of indexing. Queries are encoded in batches, a text
        that several stages' common text tower encodes or that is asked twice only once. An image
        that no longer opens when a later stage wants it isn't a result of that query.

        Args:
            texts: the queries.
            k: results wanted, at least 1; fewer come if the collection is smaller.

        Returns:
            For each query its hits.

        Raises:
            ValueError: k isn't a positive whole number, or `texts` is one string.
        """
        if isinstance(texts, str):
            raise ValueError("search_many takes a list of queries; for a single one use search")
        if int(k) != k or k < 1:
            raise ValueError(f"k must be a positive whole number, got {k}")
        if not len(texts) or not len(self):
            return [[] for _ in texts]
        queries = self._encode_queries(texts)
        answers = []
        rows = max(1, _SCORES_AT_ONCE // len(self))
        for start in range(0, len(texts), rows):
            chunk = [embedded[start : start + rows] for embedded in queries]
            answers += self._answer(chunk, int(k))
        return answers

    def _named(
        self, images: Iterable[ImageSource], keys: Iterable[Hashable] | None
    ) -> Iterator[tuple[Hashable, ImageSource]]:
        if keys is not None:
            keys = list(keys)
            self._refuse_used(keys)
            if hasattr(images, "__len__") and len(images) != len(keys):
                raise ValueError(f"{len(images)} images came with {len(keys)} keys")
            yield from zip(keys, images, strict=True)
            return
        for image in images:
            yield (str(image) if isinstance(image, str | PathLike) else self._offered), image
            self._offered += 1

    def _refuse_used(self, keys: Sequence[Hashable]) -> None:
        new = set()
        for key in keys:
            if key in self._known or key in new:
                raise ValueError(f"the key {key!r} is in use already: keys must be different")
            new.add(key)

    def _add(self, batch: list[tuple[Hashable, ImageSource]]) -> None:
        self._refuse_used([key for key, _ in batch])
        encoded = self._encode(0, [image for _, image in batch])
        for (key, image), found in zip(batch, encoded, strict=True):
            if found is None:
                self._skipped[key] = None
                continue
            self._skipped.pop(key, None)
            self._known.add(key)
            self._keys.append(key)
            self._sources.append(image if self._opened_later else None)
            self._keep(0, len(self._keys) - 1, found)

    def _encode(self, stage: int, images: list[ImageSource]) -> list[_Encoded | None]:
        """What a stage makes of images that it opens, None for those that can't be read."""
        if stage not in self._states:
            encode = self.stages[stage].encode_images
            return encode_readable(lambda batch: [(each, None) for each in encode(batch)], images)
        resuming = self.stages[self._resumed_from.index(stage)]

        def with_states(batch: list[ImageSource]) -> list[_Encoded]:
            embeddings, states = resuming.encode_first(batch)
            return list(zip(embeddings, states.apart(), strict=True))

        return encode_readable(with_states, images)

    def _keep(self, stage: int, position: int, found: _Encoded) -> None:
        embedding, states = found
        self._stores[stage].add([position], embedding[None])
        if states is not None:
            self._states[stage].add(position, states)

    def _encode_queries(self, texts: Sequence[str]) -> list[Tensor]:
        """Query embeddings [Q, d] for each stage, each text once by each text tower."""
        place = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        rows = [place[text] for text in texts]
        by_tower: dict[str, Tensor] = {}
        for stage in self.stages:
            if stage.text_name not in by_tower:
                by_tower[stage.text_name] = stage.encode_texts(list(place))[rows]
        return [by_tower[stage.text_name] for stage in self.stages]

    def _answer(self, queries: list[Tensor], k: int) -> list[list[Hit]]:
        wanted = max(k, self.m[0]) if self.m else k
        rankings = [rank_all(self._stores[0].embeddings, queries[0], wanted)]
        for stage, store in enumerate(self._stores[1:], start=1):
            candidates = self._handed_on(rankings, stage)
            self._encode_absent(stage, candidates.unique())
            slots = store.slots(candidates)
            rankings.append(rank_candidates(candidates, store.embeddings, slots, queries[stage]))
        return self._hits(rankings, k)

    def _handed_on(self, rankings: Sequence[Ranking], stage: int) -> Tensor:
        """Positions [b, c] that a later stage is handed."""
        return rankings[stage - 1].positions[:, : self.m[stage - 1]]

    def _encode_absent(self, stage: int, positions: Tensor) -> None:
        store = self._stores[stage]
        absent = positions[(positions != NOTHING) & store.absent(positions)].tolist()
        source = self._resumed_from[stage]
        for batch in _batches(iter(absent), self._batch_size):
            if source is not None:
                kept = self._states[source]
                store.add(batch, self.stages[stage].encode_states(kept.at(batch)))
                kept.forget(batch)
                continue
            encoded = self._encode(stage, [self._sources[place] for place in batch])
            for place, found in zip(batch, encoded, strict=True):
                if found is None:
                    store.add_unreadable(place)
                    self._skipped[self._keys[place]] = None
                else:
                    self._keep(stage, place, found)

    def _hits(self, rankings: Sequence[Ranking], k: int) -> list[list[Hit]]:
        """Join each query's rankings, last stage first, until there are k hits."""
        hits: list[list[Hit]] = [[] for _ in rankings[0].positions]
        done: list[set[int]] = [{NOTHING} for _ in hits]
        for stage in reversed(range(len(rankings))):
            # No list of a later stage is longer than m, so all of it may be needed.
            positions = rankings[stage].positions.tolist()
            scores = rankings[stage].scores.tolist()
            for found, seen, *ranked in zip(hits, done, positions, scores, strict=True):
                for at, score in zip(*ranked, strict=True):
                    if len(found) < k and at not in seen:
                        found.append(Hit(self._keys[at], score, stage))
            if stage:  # all that this stage was handed, so also what it couldn't read
                for seen, handed_on in zip(
                    done, self._handed_on(rankings, stage).tolist(), strict=True
                ):
                    seen.update(handed_on)
        return hits


_Item = TypeVar("_Item")


def _batches(items: Iterator[_Item], size: int) -> Iterator[list[_Item]]:
    while batch := list(islice(items, size)):
        yield batch
