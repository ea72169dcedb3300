"""What is made once for several results, and what each of these would have taken alone.

Two objects: the cache holds values by what they depend on, the bill holds seconds.
"""

import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

Value = TypeVar("Value")


@dataclass
class Bill:
    """Seconds of results: each is charged in full for all that it needs, for nothing twice."""

    _of: dict[Hashable, dict[Hashable, float]] = field(default_factory=dict)
    _needed: dict[Hashable, float] = field(default_factory=dict)
    _making: float = 0.0
    _opened: float = 0.0

    def open(self) -> None:
        """Count from here on what a result takes."""
        self._needed, self._opened = {}, time.perf_counter() - self._making

    def seconds(self) -> float:
        """Since it was opened; what had been made before counts as if it were made now."""
        return time.perf_counter() - self._making - self._opened + sum(self._needed.values())

    @contextmanager
    def making(self, key: Hashable) -> Iterator[None]:
        """Within the context a value is made; what is made for it is charged to it as well."""
        needed, self._needed = self._needed, {}
        start, before = time.perf_counter(), self._making
        try:
            yield
        finally:
            seconds = time.perf_counter() - start
            own = seconds - (self._making - before)  # without what was made for it
            self._of[key] = self._needed | {key: own}
            self._needed, self._making = needed, before + seconds

    def charge(self, key: Hashable) -> None:
        """A value made before is needed now."""
        self._needed |= self._of[key]


@dataclass(frozen=True)
class _Apart:
    """The key of a value in a cache that is apart."""

    names: tuple[Hashable, ...]
    key: Hashable


@dataclass
class Cache:
    """Values by what they depend on: a key names all that another value would come of.

    What only a part of the work knows, and what goes by the same keys there, is kept `apart`.
    """

    bill: Bill = field(default_factory=Bill)
    _values: dict[Hashable, Any] = field(default_factory=dict)
    _apart: tuple[Hashable, ...] = ()

    def apart(self, name: Hashable) -> "Cache":
        """A cache within this one, on the same bill, whose values are its own."""
        return Cache(self.bill, self._values, (*self._apart, name))

    @property
    def shared(self) -> "Cache":
        """The one that this is, or was made, within: what all parts of the work know."""
        return Cache(self.bill, self._values)

    def forget(self) -> None:
        """Let go of the values of a cache that is apart, and of those within it."""
        inside = len(self._apart)
        for key in list(self._values):
            if isinstance(key, _Apart) and key.names[:inside] == self._apart:
                del self._values[key]

    def once(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """What `make` gives, made at the first call under this key."""
        key = _Apart(self._apart, key) if self._apart else key
        if key not in self._values:
            with self.bill.making(key):
                self._values[key] = make()
        self.bill.charge(key)
        value: Value = self._values[key]
        return value
