"""How far a run is: photos looked at, how many a second, the time left, how many were skipped."""

import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from cascade.photos.finding import Listed, Photos
from cascade.upkeep import Upkeep


class Bar:
    """A bar on the terminal; in a file there is none."""

    def __init__(self, bar: "tqdm[Any]") -> None:
        self._bar = bar

    def __call__(self, done: Upkeep) -> None:
        """Show what was done."""
        self._bar.update(done.found - self._bar.n)
        said = {"new": done.added.added + done.added.replaced, "skipped": len(done.skipped)}
        self._bar.set_postfix(said, refresh=False)


@contextmanager
def progress_of(photos: Photos) -> Iterator[Bar]:
    """A bar for a run over these photos; they are counted beside it, which tells the time left."""
    bar = photo_bar()
    with bar:
        stop = threading.Event()
        counting = threading.Thread(target=_count, args=(photos, bar, stop), daemon=True)
        listed = any(isinstance(place, Listed) for place in photos.places)
        if not bar.disable and not listed:  # a list can be read only once
            counting.start()
        try:
            yield Bar(bar)
        finally:
            stop.set()
            if counting.is_alive():
                counting.join()


def photo_bar(quiet: bool = False) -> "tqdm[Any]":
    """A bar that counts photos; in a file there is none."""
    disable = True if quiet else None  # None: where there is no terminal
    return tqdm(unit="photo", file=sys.stderr, disable=disable, dynamic_ncols=True)


def _count(photos: Photos, bar: "tqdm[Any]", stop: threading.Event) -> None:
    number = 0
    for place in photos.places:
        for _ in place.rows(photos.patterns, Counter()):
            number += 1
            if stop.is_set():
                return
    bar.total = number
