"""Texts of searches that arrive together are encoded together, as images of later stages are."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(eq=False)
class _Asked:
    """Texts that a thread waits for, and their embeddings once they are there."""

    texts: Sequence[str]
    embeddings: list[Tensor] = field(default_factory=list)


class TextBatches:
    """Encodes texts for any number of threads, of which one at a time encodes for all that wait."""

    def __init__(
        self, encode: Callable[[Sequence[str]], list[Tensor]], batch_size: int = 32
    ) -> None:
        """Share batches of up to so many texts.

        Args:
            encode: texts → float32 [Q, d] for each stage.
            batch_size: texts encoded at once, unless one search alone has more.
        """
        self._encode = encode
        self._batch_size = batch_size
        self._waiting: dict[_Asked, None] = {}
        self._lock = threading.Lock()
        self._turn = threading.Lock()

    def __call__(self, texts: Sequence[str]) -> list[Tensor]:
        """The embeddings of texts, float32 [Q, d] for each stage; raises what `encode` does."""
        asked = _Asked(list(texts))
        with self._lock:
            self._waiting[asked] = None
        try:
            with self._turn:
                if not asked.embeddings:
                    self._encode_with_others(asked)
        finally:
            with self._lock:
                self._waiting.pop(asked, None)
        return asked.embeddings

    def _encode_with_others(self, asked: _Asked) -> None:
        together, number = [asked], len(asked.texts)
        with self._lock:
            others = [other for other in self._waiting if other is not asked]
        for other in others:
            if not other.embeddings and number + len(other.texts) <= self._batch_size:
                together.append(other)
                number += len(other.texts)
        try:
            found = self._encode([text for each in together for text in each.texts])
        except Exception:
            if len(together) == 1:
                raise
            asked.embeddings = self._encode(asked.texts)  # errors of the others are their own
            return
        start = 0
        for each in together:
            end = start + len(each.texts)
            each.embeddings = [embeddings[start:end] for embeddings in found]
            start = end
