"""A list in pieces, so that a million rows that were read at once are no million Python objects."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import compress, islice
from typing import Generic, TypeVar, overload

import numpy as np
import numpy.typing as npt

_Item = TypeVar("_Item")


class Column(Generic[_Item]):
    """A list that grows at its end. One thread at a time writes, any may read what is there.

    Lists are copied into it; any other sequence is kept as it is, and asked for its items whenever
    they are read.
    """

    def __init__(self) -> None:
        self._pieces: list[Sequence[_Item]] = []
        self._starts: list[int] = []
        self._changed: dict[int, _Item] = {}

    def __len__(self) -> int:
        return self._starts[-1] + len(self._pieces[-1]) if self._pieces else 0

    def __getitem__(self, place: int) -> _Item:
        if place in self._changed:
            return self._changed[place]
        piece = bisect_right(self._starts, place) - 1
        if piece < 0:
            raise IndexError(place)
        return self._pieces[piece][place - self._starts[piece]]

    def __setitem__(self, place: int, item: _Item) -> None:
        piece = bisect_right(self._starts, place) - 1
        held = self._pieces[piece]
        if isinstance(held, list):
            held[place - self._starts[piece]] = item
        else:
            self._changed[place] = item

    def put(self, start: int, items: Sequence[_Item]) -> None:
        """Let items follow the first `start`; what was there after these is dropped."""
        self._cut(start)
        if not len(items):
            return
        last = self._pieces[-1] if self._pieces else None
        if isinstance(items, list) and isinstance(last, list):
            last.extend(items)
            return
        self._pieces.append(list(items) if isinstance(items, list) else items)
        self._starts.append(start)  # last: a reader finds pieces by their starts

    def first(self, count: int) -> Iterator[_Item]:
        """The first `count` items, one after the other."""
        return islice(self._each(), count)

    def _each(self) -> Iterator[_Item]:
        for start, piece in zip(list(self._starts), list(self._pieces), strict=False):
            if not self._changed:
                yield from piece
                continue
            for place, item in enumerate(piece, start):
                yield self._changed.get(place, item)

    def _cut(self, count: int) -> None:
        while self._starts and self._starts[-1] >= count:
            del self._starts[-1], self._pieces[-1]
        if len(self) > count:
            last, left = self._pieces[-1], count - self._starts[-1]
            if isinstance(last, list):
                del last[left:]
            else:
                self._pieces[-1] = last[:left]
        for place in [place for place in self._changed if place >= count]:
            del self._changed[place]


class Selected(Sequence[_Item]):
    """Some items of a sequence, in their order there."""

    def __init__(self, items: Sequence[_Item], places: npt.NDArray[np.int64]) -> None:
        """Select.

        Args:
            items: the sequence.
            places: ascending: which of them.
        """
        self._items = items
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, place: int) -> _Item: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[_Item]: ...
    def __getitem__(self, place: int | slice) -> _Item | Sequence[_Item]:
        if isinstance(place, slice):
            return Selected(self._items, self._places[place])
        return self._items[int(self._places[place])]

    def __iter__(self) -> Iterator[_Item]:
        chosen = np.zeros(len(self._items), bool)
        chosen[self._places] = True
        return compress(self._items, chosen.tolist())
