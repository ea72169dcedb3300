"""A later stage of a cascade: it encodes the images that searches hand to it, each once.

Threads that search at the same time ask for images at the same time. One of them at a time encodes
a batch: its own images, and if these don't fill it, images that others wait for. When its turn
comes, each thread looks again at what is absent, so a thread that is interrupted or fails leaves
nothing behind that others would wait for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, cast

import torch
from torch import Tensor

from cascade.searching.catalogue import Catalogue, Contents
from cascade.searching.embeddings import EmbeddingStore
from cascade.searching.encoding import (
    Encoded,
    Encoding,
    OneAtATime,
    Outcome,
    encode_each,
    encode_states,
)
from cascade.searching.states import Resuming, States, StateStore


@dataclass
class LaterStage:
    """A stage after the first, and the embeddings that it has made so far.

    Attributes:
        place: of the stage in the cascade.
        asked: the encoder with its locks.
        encoding: how it encodes images that it opens.
        batch_size: images encoded at once.
        store: the embeddings.
        resumes_from: the states that it resumes from, if it does.
        keeps: where states are kept for a stage after this one that resumes.
        noted: told of positions and their embeddings [n, d] once they are in the store.
    """

    place: int
    asked: OneAtATime
    encoding: Encoding
    batch_size: int
    store: EmbeddingStore = field(default_factory=EmbeddingStore)
    resumes_from: StateStore | None = None
    keeps: StateStore | None = None
    noted: Callable[[list[int], Tensor], None] | None = None
    _waiting: dict[object, list[int]] = field(default_factory=dict)

    def encode_absent(
        self, positions: list[int], catalogue: Catalogue, dimension: int | None
    ) -> None:
        """Encode those images that have not been encoded yet, batch by batch.

        Failures are noted in the store; such an image is tried again the next time it comes up.

        Args:
            positions: of the images.
            catalogue: where they are.
            dimension: that of the stage's queries, if it is known.

        Raises:
            ValueError: the stage doesn't give one embedding of that dimension for each.
        """
        ticket, failures = object(), self.store.failures
        absent = self._absent(positions)
        fresh = [position for position in absent if position not in failures]
        failed = [position for position in absent if position in failures]
        try:
            for wanted in (fresh, failed):  # apart: what fails has its batch halved around it
                start = 0
                while start < len(wanted):
                    self._waiting[ticket] = wanted[start : start + self.batch_size]
                    with self.asked.images:
                        batch, start = self._next_batch(wanted, start)
                        if batch:
                            self._encode_with_others(batch, catalogue, dimension)
        finally:
            self._waiting.pop(ticket, None)

    def _absent(self, positions: Sequence[int]) -> list[int]:
        absent = self.store.absent(positions).tolist()
        return [
            position for position, is_absent in zip(positions, absent, strict=True) if is_absent
        ]

    def _next_batch(self, wanted: list[int], start: int) -> tuple[list[int], int]:
        """The next wanted images that are still absent, and where the ones after them start."""
        batch: list[int] = []
        while len(batch) < self.batch_size and start < len(wanted):
            window = wanted[start : start + self.batch_size - len(batch)]
            batch += self._absent(window)
            start += len(window)
        return batch, start

    def _encode_with_others(
        self, batch: list[int], catalogue: Catalogue, dimension: int | None
    ) -> None:
        """Encode a batch, filled up with images that other threads wait for."""
        not_now = self.store.failures.keys() | set(batch)
        asked_for = dict.fromkeys(chain.from_iterable(list(self._waiting.values())))
        others = self._absent([position for position in asked_for if position not in not_now])
        filled = batch + others[: self.batch_size - len(batch)]
        contents = catalogue.contents  # the newest: others may have found what is newer than ours
        try:
            outcomes = self._outcomes(filled, contents, dimension)
        except Exception:
            if len(filled) == len(batch):
                raise
            filled = batch  # errors of the others' images are for their own threads
            outcomes = self._outcomes(batch, contents, dimension)
        self._keep(filled, outcomes, catalogue)

    def _outcomes(
        self, positions: list[int], contents: Contents, dimension: int | None
    ) -> list[Outcome]:
        states = {} if self.resumes_from is None else self.resumes_from.found(positions)
        opened = [position for position in positions if position not in states]
        found: dict[int, Outcome] = {}
        if states:
            joined = States.joined(list(states.values()))
            resuming = cast(Resuming, self.asked.encoder)  # as it has states to go on from
            outcomes = encode_states(resuming.encode_states, joined, dimension, self.place)
            found |= zip(states, outcomes, strict=True)
        if opened:
            sources = [contents.source(position) for position in opened]
            outcomes = encode_each(self.encoding, sources, dimension, self.place)
            found |= zip(opened, outcomes, strict=True)
        return [found[position] for position in positions]

    def _keep(
        self, positions: Sequence[int], outcomes: Sequence[Outcome], catalogue: Catalogue
    ) -> None:
        encoded = {}
        for position, found in zip(positions, outcomes, strict=True):
            if not isinstance(found, Encoded):
                self.store.fail(position, found.reason)
                continue
            encoded[position] = found.embedding
            if self.keeps is not None and found.states is not None:
                self.keeps.add(position, found.states)
        if encoded:
            self.take(list(encoded), torch.stack(list(encoded.values())))
        if self.resumes_from is not None:
            self.resumes_from.forget(encoded)
            catalogue.release(encoded)

    def take(self, positions: list[int], embeddings: Tensor) -> None:
        """Take over this stage's embeddings [n, d] of those images that it has not encoded yet."""
        new = self.store.fill(positions, embeddings)
        if self.noted is not None:
            self.noted([positions[at] for at in new.tolist()], embeddings[new])

    def __getstate__(self) -> dict[str, Any]:
        """Without the threads that wait now."""
        return self.__dict__ | {"_waiting": {}}
