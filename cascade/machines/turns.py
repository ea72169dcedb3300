"""Who does what when: batches go to whoever is free, and come back in the order they were taken.

What a lost worker had in hand goes to another. Knows nothing of machines.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(eq=False)
class Turn(Generic[Item, Result]):
    """A piece of work: what it is, what came of it, and how many workers were lost over it."""

    item: Item
    result: Result | None = None
    lost: int = 0


class Turns(Generic[Item, Result]):
    """Work that is handed out. At most `waiting` items are taken and not yet given back in order.

    So memory is bounded, also where the first of them takes long.
    """

    def __init__(self, items: Iterable[Item], waiting: int) -> None:
        """Begin.

        Args:
            items: taken one by one.
            waiting: how many may be under way, at least 1.
        """
        if waiting < 1:
            raise ValueError(f"waiting must be at least 1, got {waiting}")
        self._items = iter(items)
        self._waiting = waiting
        self._begun: deque[Turn[Item, Result]] = deque()  # in order, none given back
        self._again: deque[Turn[Item, Result]] = deque()
        self._ended = False

    @property
    def over(self) -> bool:
        """Whether all items were taken and given back."""
        return self._ended and not self._begun

    def next(self) -> Turn[Item, Result] | None:
        """What to do next; None: nothing before something is done, or nothing at all."""
        if self._again:
            return self._again.popleft()
        if self._ended or len(self._begun) >= self._waiting:
            return None
        for item in self._items:
            self._begun.append(Turn(item))
            return self._begun[-1]
        self._ended = True
        return None

    def again(self, turn: Turn[Item, Result]) -> None:
        """Have it done by another, before all that is new: others may wait for it."""
        self._again.append(turn)

    def finished(self) -> Iterator[tuple[Item, Result]]:
        """Items and what came of them, in their order, as far as it is there."""
        while self._begun and (result := self._begun[0].result) is not None:
            yield self._begun.popleft().item, result
