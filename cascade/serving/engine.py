"""What a server does with its collection: searches of any number of threads, one after the other.

Each search gives what it would give alone. Texts that arrive together share a batch, and so do
images that later stages encode for several searches (`cascade.searching.later`).
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor

from cascade.answers import Answer, Terms, Wanted
from cascade.cascade import Hit
from cascade.collection import Collection
from cascade.queries import Query, answered, embedded
from cascade.searching.steps import Step
from cascade.serving.texts import TextBatches


@dataclass(frozen=True)
class Searched:
    """What was found so far.

    Attributes:
        hits: best first.
        steps: what each stage did, those that have ranked.
        embedding_seconds: what it took to embed what is looked for.
        matches: whether anything matches, as `cascade.Hits` has it.
    """

    hits: Sequence[Hit]
    steps: Sequence[Step]
    embedding_seconds: float
    matches: bool | None = None


class Engine:
    """A collection that many threads search.

    Attributes:
        collection: what is searched.
    """

    def __init__(self, collection: Collection) -> None:
        """Serve a collection."""
        self.collection = collection
        self._texts = TextBatches(collection.encode_texts)
        self._searches = 0
        self._change = threading.Condition()

    def load(self) -> None:
        """Load all stages, so that the first search needn't.

        Raises:
            CollectionError: a stage isn't what it was, or isn't there.
        """
        for stage in self.collection.stages:
            getattr(stage, "stage", None)  # of a stage that is known by name so far
        self.collection.encode_texts(["a photo"])

    def search(
        self,
        query: Query,
        terms: Terms,
        first: Callable[[Searched], None] | None = None,
    ) -> Searched:
        """The best images for a query, best first.

        Args:
            query: what is looked for.
            terms: how it is searched.
            first: told the first stage's best before a later stage begins.

        Raises:
            UnreadableImage: an example can't be opened.
            ValueError: what is looked for and what is not are the same, or m doesn't fit.
        """
        steps: list[Step] = []
        with self._searching():
            begun = time.perf_counter()
            vectors: list[Tensor] = embedded(self.collection, query, self._texts)
            embedding = time.perf_counter() - begun

            def watch(step: Step) -> None:
                steps.append(step)
                if first is not None and step.stage == 0:
                    hits = [Hit(key, score, 0) for key, score in step.best[0]]
                    first(Searched(hits, tuple(steps), embedding))

            (hits,) = self.collection.search_embeddings(
                vectors, terms.k, terms.refined, watch, terms.m
            )
        matches = hits.matches if query.is_one_text else None
        return Searched(hits, tuple(steps), embedding, matches)

    def answers(self, queries: Sequence[Wanted], terms: Terms) -> list[Answer]:
        """The answers to the queries of a command, as `cascade.queries.answered` gives them."""
        with self._searching():
            return [answered(self.collection, query, terms, self._texts) for query in queries]

    def wait_until_idle(self, stop: threading.Event, seconds: float = 0.2) -> None:
        """Wait until no search runs, or `stop` is set, which is looked at every so many seconds."""
        with self._change:
            while self._searches and not stop.is_set():
                self._change.wait(seconds)

    @contextmanager
    def _searching(self) -> Iterator[None]:
        with self._change:
            self._searches += 1
        try:
            yield
        finally:
            with self._change:
                self._searches -= 1
                self._change.notify_all()
