"""The images of a cascade: keys, sources and the first stage's embeddings, changed together.

A batch is checked, written behind what is visible, and then shown by replacing one snapshot with
another. Before that step nothing has changed for anyone, after it everything has.
"""

import os
import threading
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from cascade.searching.blocks import FirstRows
from cascade.searching.column import Column
from cascade.searching.embeddings import Rows
from cascade.searching.encoding import Encoded, Outcome
from cascade.searching.states import StateStore
from cascade.stages.images import ImageSource

_SPACED = 256


@dataclass(frozen=True)
class Offered:
    """An image to index; `named` says whether it has a key, or gets a number."""

    image: ImageSource
    named: bool
    key: Hashable = None

    @classmethod
    def without_key(cls, image: ImageSource) -> "Offered":
        """Of a path the key is the path."""
        if isinstance(image, str | os.PathLike):
            return cls(image, named=True, key=str(image))
        return cls(image, named=False)


@dataclass(frozen=True)
class Contents:
    """What a cascade holds at one moment.

    `rows` are the first stage's embeddings; of `keys` and `sources` the first `rows.count` belong
    to them, what comes after is being written. `offered` counts the images that came without keys,
    `skipped` says why images were left out. `gone` are the positions of images that were removed:
    positions are never given to others.
    """

    rows: FirstRows = field(default_factory=Rows.none)
    keys: Column[Hashable] = field(default_factory=Column)
    sources: Column["ImageSource | None"] = field(default_factory=Column)
    offered: int = 0
    skipped: Mapping[Hashable, str] = field(default_factory=dict)
    gone: frozenset[int] = frozenset()

    def __len__(self) -> int:
        """Number of images that can be found."""
        return self.rows.count - len(self.gone)

    @cached_property
    def hidden(self) -> Tensor:
        """The positions that are gone: int64, ascending."""
        return torch.tensor(sorted(self.gone), dtype=torch.int64)

    @cached_property
    def spaced(self) -> Tensor:
        """The embeddings of up to 256 images that are evenly spaced among those to be found."""
        number = min(_SPACED, len(self))
        places = torch.linspace(0, len(self) - 1, number, dtype=torch.float64).long()
        return self.rows.at(self.there[places])

    @cached_property
    def there(self) -> Tensor:
        """The positions of the images that can be found: int64, ascending."""
        every = torch.arange(self.rows.count)
        return every[~torch.isin(every, self.hidden)] if len(self.hidden) else every

    def source(self, position: int) -> ImageSource:
        """The image at a position, for a stage that has not encoded it yet.

        Raises:
            LookupError: it was released, as no stage was to open it again.
        """
        source = self.sources[position]
        if source is None:
            raise LookupError(f"the image {self.keys[position]!r} is no longer held")
        return source

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy has columns of its own, without what is being written."""
        count = self.rows.count
        keys, sources = list(self.keys.first(count)), list(self.sources.first(count))
        return _copied, (self.rows, keys, sources, self.offered, dict(self.skipped), self.gone)


class Catalogue:
    """The images of a cascade. Any thread may read `contents` and add.

    Attributes:
        contents: what there is now; take it once for answers that belong together.
        states: where the first stage's states are kept, if a later one resumes from them.
    """

    def __init__(
        self, states: StateStore | None, opened_later: bool, precision: str = "float32"
    ) -> None:
        """Make an empty one.

        Args:
            states: where the first stage's states are kept, if a later one resumes from them.
            opened_later: whether a later stage opens images.
            precision: what embeddings are kept in, float32 or float16; those that are added are
                numbers of that type.
        """
        self.contents = Contents(Rows.none(precision))
        self.states = states
        self._opened_later = opened_later
        self._places: dict[Hashable, int] = {}
        self._unplaced: list[tuple[int, Sequence[Hashable]]] = []
        self._lock = threading.Lock()
        self._placing = threading.Lock()

    def __contains__(self, key: Hashable) -> bool:
        """Whether an image of this key can be found."""
        return self.position(key) is not None

    def position(self, key: Hashable) -> int | None:
        """Where the image of a key is, if it can be found."""
        # An entry may be what a writer left who never came to an end: the keys have the last word.
        place, contents = self._placed().get(key), self.contents
        if place is None or place >= contents.rows.count or place in contents.gone:
            return None
        named = contents.keys[place] is key or contents.keys[place] == key
        return place if named else None

    def refuse_used(self, keys: Sequence[Hashable]) -> None:
        """Raise `ValueError` if a key is in use or comes twice."""
        new = set()
        for key in keys:
            if key in self or key in new:
                raise ValueError(f"the key {key!r} is in use already: keys must be different")
            new.add(key)

    def add(self, batch: Sequence[Offered], outcomes: Sequence[Outcome]) -> int:
        """Add a batch that the first stage has encoded: all of it, or nothing if this raises.

        Returns:
            Number of images that were added.

        Raises:
            ValueError: a key is in use or comes twice, or embeddings have another dimension than
                those before.
        """
        with self._lock:
            before, start = self.contents, self.contents.rows.count
            numbers = count(before.offered)
            keys = [offer.key if offer.named else next(numbers) for offer in batch]
            self.refuse_used(keys)
            named = list(zip(keys, batch, outcomes, strict=True))
            read = [
                (key, offer, found) for key, offer, found in named if isinstance(found, Encoded)
            ]
            rows = before.rows
            if read:
                if not isinstance(rows, Rows):
                    raise TypeError("what is searched in a store is added to that store")
                rows = rows.with_more(torch.stack([found.embedding for _, _, found in read]))
            sources = [
                self._held_of(start + place, offer.image, found)
                for place, (_, offer, found) in enumerate(read)
            ]
            new = [key for key, _, _ in read]
            before.keys.put(start, new)
            before.sources.put(start, sources)
            self._unplaced.append((start, new))
            offered = before.offered + sum(not offer.named for offer in batch)
            skipped = _skipped_after(before.skipped, named)
            self.contents = replace(before, rows=rows, offered=offered, skipped=skipped)
        return len(read)

    def extend(
        self,
        keys: Sequence[Hashable],
        sources: Sequence[ImageSource],
        rows: FirstRows,
        instead_of: Iterable[int] = (),
    ) -> None:
        """Add images whose embeddings were made earlier; by one thread at a time, which adds all.

        Args:
            keys: different ones, known not to be in use except by those that go.
            sources: of the images.
            rows: the first stage's embeddings that there were, and after them those of these.
            instead_of: positions of images that are gone in the same step.
        """
        with self._lock:
            before, start = self.contents, self.contents.rows.count
            before.keys.put(start, keys)
            before.sources.put(start, sources)
            self._unplaced.append((start, keys))
            self.contents = replace(before, rows=rows, gone=before.gone.union(instead_of))

    def remove(self, positions: Iterable[int]) -> None:
        """Let images be found no longer; their keys are free for others."""
        with self._lock:
            gone = self.contents.gone.union(positions)
            self.contents = replace(self.contents, gone=gone)

    def rename(self, position: int, key: Hashable) -> None:
        """Give the image at a position another key."""
        with self._lock:
            self._placed()[key] = position
            self.contents.keys[position] = key

    def release(self, positions: Iterable[int]) -> None:
        """Free the pictures that no stage will open again."""
        if self._opened_later:
            return
        for position in positions:
            if not _reopens(self.contents.sources[position]):
                self.contents.sources[position] = None

    def _placed(self) -> dict[Hashable, int]:
        """The places of keys: those of a collection that was only searched aren't needed."""
        if self._unplaced:
            with self._placing:
                while self._unplaced:
                    start, keys = self._unplaced[0]
                    self._places.update(zip(keys, count(start), strict=False))
                    del self._unplaced[0]
        return self._places

    def _held_of(self, position: int, image: ImageSource, found: Encoded) -> "ImageSource | None":
        """What is held of an image for later stages: its states, or the image, or both."""
        needed = not self._opened_later and not _reopens(image)
        if found.states is None or self.states is None:
            return image if self._opened_later else None
        kept = self.states.add(position, found.states, needed)
        return None if needed and kept else image

    def __getstate__(self) -> dict[str, Any]:
        """Without the lock, and of the places only those of what can be found."""
        contents = self.contents
        state = {"states": self.states, "_opened_later": self._opened_later, "contents": contents}
        named = enumerate(contents.keys.first(contents.rows.count))
        places = {key: at for at, key in named if at not in contents.gone}
        return state | {"_places": places, "_unplaced": []}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock(), _placing=threading.Lock())


def _copied(
    rows: FirstRows,
    keys: list[Hashable],
    sources: list["ImageSource | None"],
    offered: int,
    skipped: Mapping[Hashable, str],
    gone: frozenset[int],
) -> Contents:
    """What was pickled."""
    contents = Contents(rows, Column(), Column(), offered, skipped, gone)
    contents.keys.put(0, keys)
    contents.sources.put(0, sources)
    return contents


def _skipped_after(
    before: Mapping[Hashable, str], batch: Sequence[tuple[Hashable, Offered, Outcome]]
) -> Mapping[Hashable, str]:
    """Reasons by key, once a batch was added: new ones, without images that were mended since."""
    reasons = {key: found.reason for key, _, found in batch if not isinstance(found, Encoded)}
    mended = [key for key, _, found in batch if isinstance(found, Encoded) and key in before]
    if not reasons and not mended:
        return before
    after = dict(before) | reasons
    for key in mended:
        del after[key]
    return after


def _reopens(image: "ImageSource | None") -> bool:
    """Whether a source takes hardly any memory: a path or a function, not the picture."""
    content = image.get("bytes") if isinstance(image, dict) else image
    return not isinstance(content, Image.Image | bytes | bytearray)
