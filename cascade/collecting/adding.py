"""Adding images to a store: what was encoded is committed every few seconds, each image once.

Encoding takes long and holds nothing. A commit holds the store: it reads what others have added in
the meantime, leaves out what is there by now, writes the rest, and reads it back into the view.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch

from cascade.collecting.offers import Added, Made, Offer, is_unchanged, renewed
from cascade.collecting.view import View
from cascade.searching.encoding import Encoded, Outcome
from cascade.searching.packing import packed
from cascade.searching.states import States
from cascade.storing.rows import ImageRow
from cascade.storing.store import Store

ROWS = 2048
"""How many images are committed at once at most."""
SECONDS = 2.0
"""After how long what was encoded is committed at the latest, once a batch is done."""

STATE_BYTES = 128 << 20
"""How many bytes of states are written at once at most: each takes several copies."""


class Adding:
    """One call that adds images.

    Attributes:
        total: what became of those that are committed.
    """

    def __init__(
        self,
        store: Store,
        current: Callable[[], View],
        lock: AbstractContextManager[object],
        progress: Callable[[Added], None] | None,
    ) -> None:
        """Begin one.

        Args:
            store: where images are added.
            current: the view of the store, up to date.
            lock: held while the view changes.
            progress: told what became of images after each commit.
        """
        self.total = Added()
        self._store = store
        self._current = current
        self._view = current()  # not asked anew for each image: a commit looks again
        self._lock = lock
        self._progress = progress
        self._made: dict[str, Made] = {}
        self._touched: dict[str, ImageRow] = {}
        self._new: list[Made] = []  # of what was made, what the last commit has written
        self._seen = 0
        self._since = time.monotonic()

    def wanted(self, offers: Iterable[Offer]) -> Iterator[Offer]:
        """Those offers that must be encoded; the others are there already."""
        for offer in offers:
            known = self._view.row(offer.row.key)
            if known is None or not is_unchanged(offer.row, known):
                yield offer
                continue
            self._seen += 1
            if renewed(offer.row, known) != known:
                self._touched[offer.row.key] = offer.row

    def take(self, batch: Sequence[Offer], outcomes: Sequence[Outcome]) -> None:
        """Take what was made of a batch, and commit if it is time."""
        for offer, outcome in zip(batch, outcomes, strict=True):
            self._made[offer.row.key] = Made.of(offer.row, outcome)
        late = time.monotonic() - self._since >= SECONDS
        if late or len(self._made) >= ROWS:
            self.commit()

    def commit(self) -> None:
        """Add what was made; it is visible when this returns.

        Raises:
            CollectionError: it can't be written; it is still to be committed then.
        """
        done = Added(unchanged=self._seen)
        if self._made or self._touched:
            with self._store.writing(), self._lock:
                view = self._view = self._current()
                self._touch(view)
                done += self._add(view)
                view.refresh()
                self._keep_states(view)
        self._made, self._touched, self._new, self._seen = {}, {}, [], 0
        self._since = time.monotonic()
        if done != Added():
            self.total += done
            if self._progress is not None:
                self._progress(done)

    def _touch(self, view: View) -> None:
        """Change the rows of images whose content is what it was."""
        changed = {}
        for key, row in self._touched.items():
            at, known = view.id_of(key), view.row(key)
            if at is not None and known is not None and is_unchanged(row, known):
                changed[at] = renewed(row, known)
        if changed:
            self._store.change(list(changed), list(changed.values()))

    def _add(self, view: View) -> Added:
        """Write what is not there by now."""
        new: list[Made] = []
        replaced, unchanged, skipped = 0, 0, 0
        taken = False
        for key, made in self._made.items():
            known = view.row(key)
            if known is not None and is_unchanged(made.row, known):
                unchanged += 1
                continue
            new.append(made)
            taken |= known is not None
            if made.row.reason is not None:
                skipped += 1
            elif known is not None and known.reason is None:
                replaced += 1
        self._new = new
        if new:
            self._write(new, taken)
        added = len(new) - skipped - replaced
        return Added(added, replaced, unchanged, skipped)

    def _write(self, new: Sequence[Made], replaces: bool) -> None:
        found = [made.outcome.embedding for made in new if isinstance(made.outcome, Encoded)]
        vectors = torch.stack(found).numpy() if found else np.empty((0, 0), np.float32)
        self._store.add([made.row for made in new], vectors, replaces)

    def _keep_states(self, view: View) -> None:
        """Keep what a stage that resumes goes on from, of what was written just now."""
        if view.cascade.catalogue.states is None:
            return
        found: dict[int, States] = {}
        for made in self._new:
            at = view.id_of(made.row.key)
            states = made.outcome.states if isinstance(made.outcome, Encoded) else None
            if at is not None and states is not None:
                found[at] = states
        ids, parts = np.asarray(list(found), np.int64), list(found.values())
        step = max(1, STATE_BYTES // parts[0].bytes_per_image) if parts else 1
        for start in range(0, len(parts), step):
            rows = packed(States.joined(parts[start : start + step]))
            self._store.keep_states(ids[start : start + step], rows)
