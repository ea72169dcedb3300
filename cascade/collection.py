"""A collection: a cascade that outlives its process.

What a user embeds in their own program or runs by the commands. A collection is a directory: rows
of images and embeddings of each stage (`cascade.storing`), and a record of the stages. It is
searched by a `Cascade` in memory that is filled from there, so the same queries give the same hits,
whatever was interrupted in between.

Any thread may use a collection, and any number of processes the same directory: each sees what the
others have added, and none waits for another to search.
"""

import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, cast

from torch import Tensor

from cascade.calibrated.calibration import Calibration, Candidates, needed
from cascade.calibrated.cutoff import Cutoff
from cascade.cascade import Cascade, Hits
from cascade.collecting.adding import Adding
from cascade.collecting.approach import Approach
from cascade.collecting.counting import Status
from cascade.collecting.edition import Edition
from cascade.collecting.first import first_outcomes
from cascade.collecting.offers import Added, Addition, Offer, in_batches
from cascade.collecting.promotions import Promotions
from cascade.collecting.recalling import check_same, recalled, recorded
from cascade.collecting.record import Plan, Record
from cascade.collecting.refining import Budget, Refining
from cascade.collecting.renewing import Renewal, Renewing, check_renewable
from cascade.collecting.restaging import Restaging, restage
from cascade.collecting.rounding import PRECISIONS, rounded
from cascade.collecting.snapshot import Snapshot, snapshot_of
from cascade.collecting.view import Opener, View
from cascade.inverted.asking import sampled_queries
from cascade.inverted.building import (
    QUERIES,
    TARGET,
    Storing,
    Terms,
    brought_up_to_date,
    depths_for,
)
from cascade.inverted.fitting import Index
from cascade.inverted.record import Inverted
from cascade.inverted.rows import StoredRows
from cascade.photos.opening import compared, opened
from cascade.searching.steps import Watch
from cascade.stages.images import ImageSource
from cascade.stages.stage import Encoder
from cascade.stages.towers import Towers
from cascade.storing.errors import CollectionError, MigratedError
from cascade.storing.memory import MemoryStore
from cascade.storing.rows import ImageRow
from cascade.storing.store import Ids, Store
from corpora.decoding.reads import Tally

if TYPE_CHECKING:
    from cascade.storing.lance import LanceStore

_LATER_SECONDS = 1.0  # how old what other processes' later stages encoded may be
_KEEP_SECONDS = 600.0


class Collection:
    """Images that are searched, with what the stages made of them, on disk.

    Attributes:
        stages: the stages, as they were given or are loaded when they are first needed.
        m: candidates handed from each stage to the next; at most, if `auto`.
        auto: whether each query has as many as it needs.
        path: the directory; None: in memory.
        own_m: whether it keeps to an m that it was opened with, whatever is planned meanwhile.
        thumbnails: what later stages found that opened photos of which the first has read the
            thumbnail alone: how many show the same ("used"), and how many another picture
            ("stale").
    """

    def __init__(
        self,
        store: Store,
        record: Record,
        stages: Sequence[Encoder],
        path: Path | None = None,
        batch_size: int = 32,
        opener: Opener = opened,
        auto: bool = False,
        index: Index = "auto",
        own_m: bool = False,
    ) -> None:
        """Join a store with its stages; see `create`, `open` and `in_memory` for the usual way.

        Args:
            store: where rows and embeddings are.
            record: what the collection was made with.
            stages: the stages of the record.
            path: the store's directory, if it has one.
            batch_size: images given to a stage at once.
            opener: how a later stage opens an image again.
            auto: hand on as many candidates as each query needs, by the record's calibration.
            index: how the first stage is searched, as of `open`.
            own_m: keep to the record's m, whatever is planned meanwhile.

        Raises:
            ValueError: index is something else.
        """
        self.own_m = own_m
        self.auto = auto
        self.stages = tuple(stages)
        self.m = tuple(record.m)
        self.path = path
        self._store = store
        self._record = record
        self._batch_size = batch_size
        self._opener = opener
        self.thumbnails = Tally()
        self._approach = Approach(index, store, path, record.generation, record.precision)
        self._rounded = rounded(stages, record.precision)
        self._writable = path is None or os.access(path, os.W_OK)
        self._edition = None if path is None else Edition(path, record.generation)
        self._promotions = Promotions(self._hand_over_quietly)
        self._lock = threading.RLock()  # taken after the store's `writing`, never before
        self._closed = False
        self._refreshed = time.monotonic()
        self._view = self._new_view()
        if auto:
            self.m = self._view.cascade.m

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        stages: Sequence[Encoder],
        m: Sequence[int] | None = None,
        precision: str = "float16",
        batch_size: int = 32,
        opener: Opener = opened,
        index: Index = "auto",
    ) -> "Collection":
        """Make an empty collection.

        Args:
            path: a directory that isn't there yet, or is empty.
            stages: cheap to expensive, as of `Cascade`. Where their checkpoints are is written
                down, so that `open` finds them.
            m: candidates handed on, as of `Cascade`.
            precision: what embeddings are kept in, "float16" or "float32".
            batch_size: images given to a stage at once.
            opener: how a later stage opens an image again, given its row; by default a file, which
                must not have changed since, or whatever else `cascade.photos` finds.
            index: how the first stage is searched, as of `open`.

        Raises:
            CollectionError: there is something at that path, it can't be written, or lancedb isn't
                installed.
            ValueError: stages, m, batch size, precision or index are out of range.
        """
        path = Path(path)
        record = _record(stages, m, precision, batch_size)
        _require_lance()
        _make(path, record)
        return cls(_stored(path, record), record, stages, path, batch_size, opener, index=index)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        stages: Sequence[Encoder] | None = None,
        m: Candidates | None = None,
        batch_size: int = 32,
        opener: Opener = opened,
        device: str = "cpu",
        index: Index = "auto",
        runtime: str = "torch",
    ) -> "Collection":
        """Open a collection.

        Args:
            path: its directory.
            stages: the stages that it was made with; by default they are loaded from where they
                were then, each when it is first needed.
            m: candidates handed on from now on; by default those that it was made with. "auto": as
                many as each query needs, which `evaluation.plan --m auto` has to have learnt.
            batch_size: images given to a stage at once.
            opener: as of `create`.
            device: where stages that are loaded run.
            index: how the first stage is searched. "exact": all of its embeddings are read into
                memory. "ivf": they stay on disk, and a search looks into as many lists of them as
                have reached a measured recall (`build_index`); until there are such lists, it reads
                them all. "auto": "exact" as long as they take at most half of the memory that is
                available, by the machine and its control groups.
            runtime: what computes their vision towers, as `Stage.load` takes it; those that were
                in float32 stay so, the others run in what they were made with.

        Raises:
            CollectionError: there is no collection at that path, it was written by a newer version,
                or with other weights or preprocessing than those of `stages`.
            ValueError: m, the batch size or index are out of range, or m is "auto" and nothing is
                calibrated.
        """
        path = Path(path)
        record = Record.read(path)
        if stages is None:
            known: Sequence[Encoder] = recalled(
                record.stages, path, Towers(device, runtime, batch_size)
            )
        else:
            check_same(record.stages, stages, path)
            known = stages
        auto = m == "auto"
        if m is not None:
            checked = Cascade(known, m, calibration=record.calibration).m
            record = record if auto else replace(record, m=checked, plan=None)
        try:
            store, own_m = _stored(path, record), m is not None
            return cls(store, record, known, path, batch_size, opener, auto, index, own_m)
        except CollectionError:
            if not Edition(path, record.generation).superseded():
                raise
        # migrated at that moment
        return cls.open(path, stages, m, batch_size, opener, device, index, runtime)

    @classmethod
    def in_memory(
        cls,
        stages: Sequence[Encoder],
        m: Sequence[int] | None = None,
        precision: str = "float16",
        batch_size: int = 32,
        opener: Opener = opened,
        index: Index = "auto",
    ) -> "Collection":
        """Make a collection that ends with this process; arguments as of `create` and `open`."""
        record = _record(stages, m, precision, batch_size)
        store = MemoryStore(len(stages), precision)
        return cls(store, record, stages, None, batch_size, opener, index=index)

    def __enter__(self) -> "Collection":
        """The collection."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def __len__(self) -> int:
        """Number of images that can be found."""
        return len(self._current().cascade)

    def __contains__(self, key: str) -> bool:
        """Whether an image of this key can be found."""
        return key in self._current().cascade

    @property
    def skipped(self) -> dict[str, str]:
        """Why images have no embedding, by their keys, as of `Cascade.skipped`.

        Those that a later stage could not encode are known to the process that tried.
        """
        view = self._current()
        first = {row.key: str(row.reason) for row in list(view.skipped.values())}
        later = {str(key): reason for key, reason in view.cascade.skipped.items()}
        return first | later

    @property
    def record(self) -> Record:
        """What it was made with."""
        return self._record

    @property
    def plan(self) -> Plan | None:
        """What was certified of its m; None: nothing, or of another m, or of an exact search.

        While lists are searched (`inverted`) it is none: what they miss was not certified.
        """
        return None if self.inverted is not None else self._record.plan

    @property
    def inverted(self) -> Inverted | None:
        """What was measured of the lists that are searched; None: the search is exact."""
        rows = self._current().cascade.catalogue.contents.rows
        return rows.lists_used() if isinstance(rows, StoredRows) else None

    @property
    def calibration(self) -> Calibration | None:
        """How its stages agree, as far as that was learnt."""
        return self._record.calibration

    @property
    def cutoff(self) -> Cutoff | None:
        """Below what score nothing matches, as far as that was learnt."""
        return self._record.cutoff

    @property
    def cascade(self) -> Cascade:
        """The images as they are now, to read and to measure; adding is the collection's own.

        What its later stages encode is stored within seconds, as that of searches is.
        """
        return self._current().cascade

    def adopt(
        self,
        m: Sequence[int],
        plan: Plan | None = None,
        calibration: Calibration | None = None,
        cutoff: Cutoff | None = None,
    ) -> None:
        """Hand on so many candidates from now on, here and wherever it is opened next.

        Args:
            m: candidates, as of `Cascade`.
            plan: what was certified of them.
            calibration: how the stages agree; None leaves what was learnt before.
            cutoff: below what score nothing matches; None leaves what was learnt before.

        Raises:
            CollectionError: the directory can't be written.
            ValueError: m doesn't fit the stages, or the calibration or cutoff is of others.
        """
        m = Cascade(self.stages, m).m
        names = [stage.name for stage in self.stages]
        if calibration is not None:
            needed(calibration, names)
        if cutoff is not None and (why := cutoff.unfit(names, cutoff.images)):
            raise ValueError(f"the cutoff can't be used: {why}")
        self.flush()
        with self._store.writing(), self._lock:
            self._record = replace(
                self._record,
                m=m,
                plan=plan,
                calibration=calibration or self._record.calibration,
                cutoff=cutoff or self._record.cutoff,
            )
            if self.path is not None:
                self._record.write(self.path)
            self.m = m
            self.auto = self.own_m = False
            self._view = self._new_view()

    def restage(self, asked: Restaging) -> None:
        """Have other stages from now on, wherever it is opened next; see `cascade.migrating`.

        The first stage's embeddings are mapped, and no image is encoded. This object, and whoever
        else has the directory open, goes on searching what it has read; to add, open it again.

        Raises:
            CollectionError: it is in memory, or can't be written: nothing has changed then.
        """
        if self.path is None:
            raise CollectionError("a collection in memory can't be migrated: make another one")
        self.flush()
        with self._store.writing():
            store = cast("LanceStore", self._store)
            restage(store, self.path, self._record, self.stages[0], asked)

    def renew(self, asked: Renewal, progress: Callable[[int], object] | None = None) -> None:
        """Have another first stage from now on, wherever it is opened next.

        It encodes all images; what the later stages have encoded stays. Meanwhile the collection is
        searched and added to as before, and what is cut off goes on where it was. In the end this
        object, and whoever else has the directory open, goes on searching what it has read; to add,
        open it again.

        Args:
            asked: the new first stage, and m.
            progress: told of images that are encoded: at first of those that were before.

        Raises:
            CollectionError: it is in memory, has one stage or one that resumes, can't be written,
                or an image can't be read any more: nothing has changed then, and what was encoded
                is kept.
            ValueError: m doesn't fit the stages.
        """
        check_renewable(self._record, self.path)
        m = Cascade([asked.first, *self.stages[1:]], asked.m).m
        self.flush()
        store, path = cast("LanceStore", self._store), cast(Path, self.path)
        wanted = replace(asked, m=m)
        Renewing(store, path, self._record, self.image_of, wanted, progress).run()

    @property
    def needs_lists(self) -> bool:
        """Whether the first stage is searched where it is stored."""
        return isinstance(self._current().cascade.catalogue.contents.rows, StoredRows)

    def build_index(
        self,
        target: float = TARGET,
        said: Callable[[str], object] | None = None,
        queries: int = QUERIES,
    ) -> Inverted | None:
        """Make the lists that index="ivf" searches, and measure how many of them have to be.

        Only what is needed is done: lists are made anew when the collection has doubled or halved,
        extended when a twentieth is in none, and measured when something of it has changed. Recall
        is measured on images of the collection and on its captions, if it has any, against the
        exact ranking, at 10, 100, 1000 and the m of this collection. Others may add meanwhile, but
        wait for the lists; whatever cuts it off, the next call goes on from it.

        Args:
            target: the recall that is to be reached, in (0, 1].
            said: told what is done.
            queries: how many images, and how many captions, it is measured on.

        Returns:
            What was measured; None: there are no images.

        Raises:
            CollectionError: the directory can't be written, or is full.
            ValueError: the target or the number of queries is out of range.
        """
        terms = Terms(target, depths_for(self.m[:1], len(self)), queries)
        self._check_writable()
        view = self._current()
        contents = view.cascade.catalogue.contents
        rows = StoredRows.none(self._store.first_embeddings(), self._approach.file)
        if contents.rows.count:
            rows = rows.with_ids(view.ids(range(contents.rows.count)))
        return brought_up_to_date(
            Storing(rows, contents.hidden, self._record.generation, self._store.writing),
            terms,
            lambda: sampled_queries(view.cascade, view.rows(), queries),
            said or _unsaid,
        )

    def row(self, key: str) -> ImageRow | None:
        """The row of a key, also of a skipped image; None: there is none."""
        return self._current().row(key)

    def id_of(self, key: str) -> int | None:
        """The number of the image of a key, None: there is none.

        It stays the same as long as the image's content does, also under another key, and is never
        given to another image.
        """
        return self._current().id_of(key)

    def numbered(self, keys: Iterable[str]) -> dict[str, tuple[int, ImageRow]]:
        """The numbers and rows of those keys whose images can be found."""
        view = self._current()
        found = {key: (view.id_of(key), view.row(key)) for key in keys}
        return {
            key: (number, row)
            for key, (number, row) in found.items()
            if number is not None and row is not None and row.reason is None
        }

    def row_of(self, number: int) -> ImageRow | None:
        """The row of the image of a number that can be found; None: there is none."""
        return self._current().row_of(number)

    def image_of(self, row: ImageRow) -> ImageSource:
        """What a stage is given to open the image of a row again."""
        return partial(self._opener, row)

    def rows(self) -> Iterator[ImageRow]:
        """The rows of all images, in the order in which they were added, skipped ones last."""
        return self._current().rows()

    def add(
        self,
        images: Iterable[Addition],
        progress: Callable[[Added], None] | None = None,
    ) -> Added:
        """Add images; the first stage encodes them, batch by batch.

        Those that are there already are left as they are: images of the same key and the same
        digest, or the same size and time of change. So what was cut off goes on where it was when
        the same images are given again. An image with other content replaces the one of the same
        key, with the embeddings of all stages. One that can't be read, or whose row has a reason,
        is written down as skipped.

        Images become visible, here and to other processes, every few seconds, and whatever is
        visible lasts. If this raises or is interrupted, what was encoded before is added.

        Args:
            images: paths of files, rows, or pairs of a row and what to open instead of its `uri`,
                or an `Encoded` of `cascade.searching.encoding`, as its first stage has made it.
            progress: told what became of images whenever some are visible.

        Returns:
            What became of them in all.

        Raises:
            CollectionError: the directory can't be written, or is full: then what was added before
                lasts.
            ValueError: as of `Cascade.index`, or an embedding of another dimension is given.
        """
        self._check_writable()
        adding = Adding(self._store, self._current, self._lock, progress)
        offers = adding.wanted(map(Offer.of, images))
        try:
            for batch in in_batches(offers, self._batch_size):
                adding.take(batch, first_outcomes(batch, self._view.cascade, self._opener))
        finally:
            adding.commit()
        return adding.total

    def update(self, key: str, row: ImageRow) -> None:
        """Change an image's row; see `update_many`."""
        self.update_many({key: row})

    def update_many(self, rows: Mapping[str, ImageRow]) -> None:
        """Change images' rows, their keys too, in one step: what was moved keeps its embeddings.

        Args:
            rows: of images by the keys that they have now.

        Raises:
            ValueError: there is no image of a key, or a row's key is another image's.
            CollectionError: the directory can't be written.
        """
        if not rows:
            return
        with self._store.writing(), self._lock:
            view = self._current()
            ids: list[int] = []
            for key, row in rows.items():
                at, known = view.id_of(key), view.row(key)
                if at is None or known is None:
                    raise ValueError(f"there is no image {key!r}")
                if row.key != key and view.id_of(row.key) is not None:
                    raise ValueError(
                        f"the key {row.key!r} is in use already: keys must be different"
                    )
                if (known.reason is None) != (row.reason is None):
                    raise ValueError(f"{key!r} can't become or cease to be a skipped image: add it")
                ids.append(at)
            if len({row.key for row in rows.values()}) < len(rows):
                raise ValueError("two images would have the same key: keys must be different")
            self._store.change(ids, list(rows.values()))
            view.refresh()

    def remove(self, keys: Iterable[str]) -> int:
        """Remove images, also skipped ones; says how many there were.

        Raises:
            CollectionError: the directory can't be written.
        """
        with self._store.writing(), self._lock:
            view = self._current()
            ids = {view.id_of(key) for key in keys} - {None}
            if ids:
                self._store.remove(sorted(at for at in ids if at is not None))
                view.refresh()
            return len(ids)

    def search(self, text: str, k: int, refined: bool = False) -> Hits:
        """The k best images for a query, best first; see `Cascade.search_many`."""
        return self._current().cascade.search(text, k, refined)

    def search_many(self, texts: Sequence[str], k: int, refined: bool = False) -> list[Hits]:
        """The k best images for each of many queries; see `Cascade.search_many`.

        What later stages encode for it is stored within seconds.
        """
        return self._current().cascade.search_many(texts, k, refined)

    def search_embeddings(
        self,
        queries: Sequence[Tensor],
        k: int,
        refined: bool = False,
        watch: Watch | None = None,
        m: Candidates | None = None,
    ) -> list[Hits]:
        """The k best images for queries that are embedded; see `Cascade.search_embeddings`."""
        return self._current().cascade.search_embeddings(queries, k, refined, watch, m)

    def encode_examples(self, images: Sequence[ImageSource]) -> list[Tensor]:
        """The embeddings of images to search with; see `Cascade.encode_examples`."""
        return self._view.cascade.encode_examples(images)

    def encode_texts(self, texts: Sequence[str]) -> list[Tensor]:
        """The embeddings of queries for each stage; see `Cascade.encode_texts`."""
        return self._view.cascade.encode_texts(texts)

    def refine(
        self,
        budget: Budget | None = None,
        stop: threading.Event | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """Let the last stage encode images that no query has brought up yet.

        First images that an earlier stage has promoted, then those nearest to promoted ones, then
        the rest. Searches find these encoded, and needn't wait for them; `refined` ones also take
        them into account.

        Args:
            budget: how much; by default all.
            stop: ends it after the batch that is being encoded, once it is set.
            progress: told after each batch how many images it encoded.

        Returns:
            Number of images that were encoded.

        Raises:
            CollectionError: the directory can't be written.
            ValueError: there is only one stage.
        """
        if len(self.stages) == 1:
            raise ValueError("a collection with one stage has nothing to refine")
        self._check_writable()
        refining = Refining(self._current, self._batch_size, budget or Budget(), stop, progress)
        try:
            return refining.run()
        finally:
            self.flush()

    def snapshot(self, stage: int = 0) -> Snapshot:
        """The images that can be found and that a stage has encoded, with its embeddings.

        Raises:
            ValueError: there is no such stage.
        """
        if not 0 <= stage < len(self.stages):
            raise ValueError(f"stages are numbered from 0 to {len(self.stages) - 1}, not {stage}")
        with self._lock:
            return snapshot_of(self._current(), stage)

    def status(self) -> Status:
        """What there is now."""
        view = self._current()
        waiting = self._promotions.waiting()
        states, state_bytes = self._store.kept_states()
        encoded = view.cascade.encoded
        return Status(
            images=len(view.cascade),
            skipped=Counter(str(row.reason) for row in list(view.skipped.values())),
            encoded=tuple(number - waiting.get(place, 0) for place, number in enumerate(encoded)),
            waiting=sum(waiting.values()),
            nbytes=self._store.nbytes(),
            stages=tuple(stage.name for stage in self.stages),
            m=self.m,
            precision=self._record.precision,
            states=states,
            state_bytes=state_bytes,
            searched=view.cascade.catalogue.contents.rows.how,
            inverted=self.inverted,
        )

    def flush(self) -> None:
        """Store what later stages have encoded, which happens within seconds in any case.

        Raises:
            CollectionError: the directory can't be written, or is full: it is kept in memory.
        """
        if self._writable:
            self._promotions.hand_over(self._store)

    def compact(self, keep_seconds: float = _KEEP_SECONDS) -> None:
        """Make the directory small and quick to read, which happens now and then in any case.

        Args:
            keep_seconds: how old a version must be to be removed. Whoever takes longer to read it
                fails.

        Raises:
            CollectionError: the directory can't be written.
        """
        self.flush()
        self._store.release_states(self._current().resumed())
        self._store.compact(keep_seconds)

    def close(self) -> None:
        """Store what isn't yet, and let go of the directory. A second time it does nothing.

        Raises:
            CollectionError: the directory can't be written, or is full.
        """
        if self._closed:
            return
        self._closed = True
        self._promotions.stop()
        try:
            self.flush()
        except MigratedError:
            pass  # of a stage that the directory no longer has
        finally:
            self._store.close()

    def _current(self) -> View:
        """The view, which knows of all that others have added."""
        if self._closed:
            raise CollectionError(f"the collection {self.path or 'in memory'} is closed")
        recent = time.monotonic() - self._refreshed < _LATER_SECONDS
        planned = self._edition is not None and self._edition.changed()
        if recent and not planned and self._view.is_current() and not self._outlived():
            return self._view
        with self._lock:
            if self._superseded():
                self._check_readable()
                return self._view
            self._take_over()
            try:
                if self._outlived():
                    self._view = self._new_view()
                else:
                    self._view.refresh()
            except CollectionError:
                if not self._superseded():
                    raise
            self._refreshed = time.monotonic()
            return self._view

    def _outlived(self) -> bool:
        """Whether another view is better: too much of it is hidden, or more than memory holds."""
        return self._view.crowded or self._approach.outgrown(self._view.held)

    def _check_readable(self) -> None:
        """Refuse to search what is no longer on disk.

        Raises:
            MigratedError: it isn't in memory.
        """
        rows = self._view.cascade.catalogue.contents.rows
        if isinstance(rows, StoredRows) and self._edition is not None:
            self._edition.check()

    def _take_over(self) -> None:
        """Search as another process has planned: with its m, unless another was asked for here."""
        newest = None if self._edition is None else self._edition.newest()
        own = self._record
        if newest is None or [stage.name for stage in newest.stages] != [
            stage.name for stage in own.stages
        ]:
            return
        m, plan = (own.m, own.plan) if self.own_m else (tuple(newest.m), newest.plan)
        taken = replace(own, m=m, plan=plan, calibration=newest.calibration, cutoff=newest.cutoff)
        if taken == own or (self.auto and taken.calibration is None):
            return
        self._record = taken
        self._view.cascade.learn("auto" if self.auto else m, taken.calibration, taken.cutoff)
        self.m = self._view.cascade.m

    def _superseded(self) -> bool:
        """Whether the directory has other stages by now, so that nothing in it is this one's."""
        return self._edition is not None and self._edition.superseded()

    def _new_view(self) -> View:
        noted = self._promotions.note if self._writable else _forgotten
        opener = self._opener
        if self._record.stages[0].reads == "thumbnail":
            opener = partial(compared, opener, self.thumbnails)
        m: Candidates = "auto" if self.auto else self.m
        view = View(
            self._store,
            self._rounded,
            m,
            self._batch_size,
            opener,
            noted,
            self._record.precision,
            self.calibration,
            self.cutoff,
            self._approach.stored(),
        )
        view.refresh()
        return view

    def _check_writable(self) -> None:
        with self._store.writing():
            pass

    def _hand_over_quietly(self) -> None:
        """Store what waits; if it can't be, it is tried again later, and `flush` says why."""
        try:
            self.flush()
        except CollectionError:
            self._promotions.again()


def _unsaid(_: str) -> None:
    """Of what is done nothing is said."""


def _forgotten(place: int, ids: Ids, embeddings: Tensor) -> None:
    """What becomes of promotions where nothing can be written: they stay in memory."""


def _record(
    stages: Sequence[Encoder], m: Sequence[int] | None, precision: str, batch_size: int
) -> Record:
    """The record of a new collection.

    Raises:
        ValueError: stages, m, precision or batch size are out of range.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision is one of {', '.join(PRECISIONS)}, not {precision!r}")
    m = Cascade(stages, m, batch_size).m
    return Record([recorded(stage) for stage in stages], m, precision)


def _make(path: Path, record: Record) -> None:
    """Make a collection's directory; it is there as a whole or not at all.

    Raises:
        CollectionError: there is something at that path, or it can't be written.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise CollectionError(
            f"{path} is there already: open it with Collection.open, or choose another directory"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as unfinished:
            made = Path(unfinished, "collection")
            made.mkdir()
            record.write(made)
            made.rename(path)
    except OSError as error:
        raise CollectionError(f"{path} can't be made: {error.strerror}") from error


def _stored(path: Path, record: Record) -> Store:
    """The store of a collection on disk."""
    check = Edition(path, record.generation).check
    return _require_lance()(path, len(record.stages), record.precision, record.generation, check)


def _require_lance() -> type["LanceStore"]:
    """The kind of store on disk; what it needs is imported now, and not by who asks for none.

    Raises:
        CollectionError: it isn't installed.
    """
    from cascade.storing.lance import LanceStore

    return LanceStore
