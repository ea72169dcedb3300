"""Keeping a collection what a person's photos are: what is new is encoded, the rest stays.

Between places where photos lie (`cascade.photos`) and the collection. Photos are read, hashed and
decoded in threads ahead of the first stage, and no further than it looks. Whatever ends a run, the
next one goes on where it was.
"""

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

from cascade.collecting.offers import Added, Addition
from cascade.collecting.recalling import RecalledStage
from cascade.collection import Collection
from cascade.photos.changes import Change, Kind, changes
from cascade.photos.finding import Photos
from cascade.photos.identity import is_of_ends
from cascade.photos.opening import is_there
from cascade.photos.preparing import prepared
from cascade.photos.reading import digest_at
from cascade.stages.mapped import MappedStage
from cascade.stages.stage import Stage
from cascade.storing.rows import ImageRow
from corpora.decoding.watching import watched
from corpora.pixels.ahead import TOGETHER, ahead

_AT_ONCE = 1000
"""Images that were moved whose rows are changed in one commit."""
Preparing: TypeAlias = Callable[[Iterable[Change]], Generator["Addition | None", None, None]]
"""Makes of each photo that has changed, in order, what is added; None: it is gone by now."""


@dataclass
class Upkeep:
    """What a run has found and done so far.

    Attributes:
        found: photos that were looked at, those skipped before included.
        kinds: what has become of how many.
        added: what became of those that went into the collection, as far as it lasts.
        pruned: rows removed because their photos are gone.
        skipped: why photos were skipped in this run, by key.
        vanished: photos that were there when they were found and gone when they were to be read.
        opened: photos that were opened for the first stage.
        by_thumbnail: of these, those that it saw by their thumbnails, with no more of them read.
        size: bytes of the files that had to be opened, for the first stage or to compare them. What
            a data set holds itself is in no file of its own, and isn't counted.
        nbytes: of these, the bytes that this process has read.
    """

    found: int = 0
    kinds: Counter[Kind] = field(default_factory=Counter)
    added: Added = field(default_factory=Added)
    pruned: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    vanished: int = 0
    opened: int = 0
    by_thumbnail: int = 0
    size: int = 0
    nbytes: int = 0


def bring_up_to_date(
    collection: Collection,
    photos: Photos,
    prune: bool = False,
    retry: bool = False,
    threads: int = 2,
    progress: Callable[[Upkeep], None] | None = None,
    preparing: Preparing | None = None,
) -> Upkeep:
    """Make a collection hold the photos that there are.

    Args:
        collection: what holds them.
        photos: where they are.
        prune: remove images that these places had and that are no longer there; else they stay.
        retry: also read again what was skipped before and hasn't changed since.
        threads: that read and decode.
        progress: told after each photo, and after each commit.
        preparing: reads and decodes, and may encode, elsewhere than in threads of this process.

    Returns:
        What was found and done.

    Raises:
        CollectionError: the collection can't be written.
        CorpusError: a data set can't be loaded.
    """
    if preparing is None:
        preparing = partial(_in_threads, partial(_decoder, collection), threads)
    return _Run(collection, photos, prune, retry, preparing, progress).run()


@dataclass
class _Run:
    collection: Collection
    photos: Photos
    prune: bool
    retry: bool
    preparing: Preparing
    progress: Callable[[Upkeep], None] | None
    done: Upkeep = field(default_factory=Upkeep)
    moved: dict[str, ImageRow] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)

    def run(self) -> Upkeep:
        with watched() as opening, closing(self._additions()) as additions:
            self.collection.add(additions, self._committed)
        self.done.nbytes = opening.nbytes
        self._move()
        if self.prune:
            self.done.pruned = self.collection.remove(self.gone)
        self._tell()
        return self.done

    def _additions(self) -> Generator[Addition, None, None]:
        """What is added: rows alone, and rows with images that are ready, or encoded."""
        with closing(self.preparing(self._to_read())) as ready:
            for addition in ready:
                if addition is None:
                    self.done.vanished += 1
                    continue
                row = addition[0] if isinstance(addition, tuple) else addition
                if isinstance(addition, tuple):
                    self.done.opened += 1
                    self.done.by_thumbnail += is_of_ends(addition[0].digest)
                if isinstance(row, ImageRow) and row.reason is not None:
                    self.done.skipped[row.key] = row.reason
                yield addition

    def _to_read(self) -> Iterator[Change]:
        """The changes that concern what is added; the others are dealt with here."""
        known = self.collection.rows()
        there = partial(_is_there, is_there)
        for change in changes(known, self.photos, digest_at, there, self.photos.covers):
            kind, row = change.kind, change.row
            self.done.kinds[kind] += 1
            self.done.found += kind is not Kind.GONE
            again = self.retry and kind is Kind.UNCHANGED and row.reason is not None
            read = again or kind not in (Kind.UNCHANGED, Kind.GONE)
            if read and row.modified is not None:  # else in a data set, whose library reads it
                self.done.size += row.size or 0
            if kind is Kind.MOVED and change.before is not None:
                self.moved[change.before.key] = row
                if len(self.moved) >= _AT_ONCE:
                    self._move()
            elif kind is Kind.GONE:
                self.gone.append(row.key)
            elif kind is not Kind.UNCHANGED or (again and row.size):
                yield change
            elif row.reason is not None:
                self.done.skipped[row.key] = row.reason
            self._tell()

    def _move(self) -> None:
        self.collection.update_many(self.moved)
        self.moved = {}

    def _committed(self, added: Added) -> None:
        self.done.added += added
        self._tell()

    def _tell(self) -> None:
        if self.progress is not None:
            self.progress(self.done)


def _is_there(look: Callable[[str], bool], row: ImageRow) -> bool:
    try:
        return look(row.uri)
    except ValueError:  # a plain path, as of images that a program has added
        return True


def _decoder(collection: Collection) -> Stage | MappedStage | None:
    """The first stage, loaded, if images can be prepared for it ahead."""
    first = collection.stages[0]
    if isinstance(first, RecalledStage):
        return first.stage
    return first if isinstance(first, Stage | MappedStage) else None


def _in_threads(
    decoder: Callable[[], Stage | MappedStage | None], threads: int, changed: Iterable[Change]
) -> Generator["Addition | None", None, None]:
    """See `Preparing`: read and decoded in threads ahead of the first stage."""
    return ahead(changed, partial(prepared, decoder), threads, together=TOGETHER)
