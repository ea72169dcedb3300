"""A later stage of a cascade: it encodes what searches hand it, each image once.

Threads that search at the same time ask for images at the same time. One of them at a time encodes
a batch: its own images, and where these don't fill it those that others wait for. Nobody is told
to wait for anybody: each looks again at what is absent when its turn comes, so a thread that is
interrupted or fails leaves nothing behind that others would wait for.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

import torch

from cascade.catalogue import Catalogue, Contents
from cascade.encoding import Encoded, Encoding, OneAtATime, Outcome, encode_each, encode_states
from cascade.states import States, StateStore
from cascade.store import EmbeddingStore


@dataclass
class LaterStage:
    """A stage after the first, and the embeddings that it has made so far.

    Attributes:
        place: of the stage in the cascade.
        asked: the encoder with its locks.
        encoding: how it encodes images that it opens.
        batch_size: images encoded at once.
        store: the embeddings.
        resumes_from: the states that it goes on from, if it resumes.
        keeps: where states are kept that a stage after this one goes on from.
    """

    place: int
    asked: OneAtATime
    encoding: Encoding
    batch_size: int
    store: EmbeddingStore = field(default_factory=EmbeddingStore)
    resumes_from: StateStore | None = None
    keeps: StateStore | None = None
    _waiting: dict[object, list[int]] = field(default_factory=dict)

    def encode_absent(self, positions: list[int], catalogue: Catalogue, dimension: int) -> None:
        """Encode those of some images that never were, batch by batch.

        An image that fails is noted in the store, and tried again the next time it comes up.

        Args:
            positions: of the images.
            catalogue: where they are.
            dimension: that of the stage's queries.

        Raises:
            ValueError: the stage doesn't give one embedding of that dimension for each.
        """
        ticket, tried = object(), set()
        try:
            while wanted := self._absent(each for each in positions if each not in tried):
                self._waiting[ticket] = wanted
                with self.asked.images:
                    batch = self._next_batch(wanted)
                    if batch:
                        self._encode_with_others(batch, catalogue, dimension)
                tried.update(batch)
        finally:
            self._waiting.pop(ticket, None)

    def _absent(self, positions) -> list[int]:
        positions = list(positions)
        absent = self.store.absent(positions).tolist()
        return [each for each, is_absent in zip(positions, absent, strict=True) if is_absent]

    def _next_batch(self, wanted: list[int]) -> list[int]:
        """What is encoded next: images that failed before come last, apart from the others."""
        absent, failures = self._absent(wanted), self.store.failures
        fresh = [each for each in absent if each not in failures]
        return (fresh or absent)[: self.batch_size]

    def _encode_with_others(self, batch: list[int], catalogue: Catalogue, dimension: int) -> None:
        """Encode a batch, filled up with images that other threads wait for."""
        failures = self.store.failures
        asked_for = dict.fromkeys(chain.from_iterable(list(self._waiting.values())))
        others = self._absent(each for each in asked_for if each not in failures)
        others = [each for each in others if each not in set(batch)]
        filled = batch + others[: self.batch_size - len(batch)]
        contents = catalogue.contents  # the newest: others may have found what is newer than ours
        try:
            outcomes = self._outcomes(filled, contents, dimension)
        except Exception:
            if len(filled) == len(batch):
                raise
            filled = batch  # whatever is wrong with the others' images is for them to hear
            outcomes = self._outcomes(batch, contents, dimension)
        self._keep(filled, outcomes, catalogue)

    def _outcomes(self, positions: list[int], contents: Contents, dimension: int) -> list[Outcome]:
        states = {} if self.resumes_from is None else self.resumes_from.found(positions)
        opened = [each for each in positions if each not in states]
        found: dict[int, Outcome] = {}
        if states:
            joined = States.joined(list(states.values()))
            encode = self.asked.encoder.encode_states
            outcomes = encode_states(encode, joined, dimension, self.place)
            found |= zip(states, outcomes, strict=True)
        if opened:
            sources = [contents.sources[each] for each in opened]
            outcomes = encode_each(self.encoding, sources, dimension, self.place)
            found |= zip(opened, outcomes, strict=True)
        return [found[each] for each in positions]

    def _keep(
        self, positions: Sequence[int], outcomes: Sequence[Outcome], catalogue: Catalogue
    ) -> None:
        encoded = {}
        for position, found in zip(positions, outcomes, strict=True):
            if not isinstance(found, Encoded):
                self.store.fail(position, found.reason)
                continue
            encoded[position] = found.embedding
            if self.keeps is not None:
                self.keeps.add(position, found.states)
        if encoded:
            self.store.add(list(encoded), torch.stack(list(encoded.values())))
        if self.resumes_from is not None:
            self.resumes_from.forget(encoded)
            catalogue.release(encoded)

    def __getstate__(self) -> dict:
        """Without who waits now."""
        return self.__dict__ | {"_waiting": {}}
