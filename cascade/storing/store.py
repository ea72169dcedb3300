"""What a collection asks of a store: rows of images, embeddings of each stage, and one writer.

Beside these it keeps what a stage that resumes goes on from, which can be made again.

A store is dumb: it keeps what it is given, each call as a whole or not at all. What belongs in it
is decided above it, by whoever holds `writing`.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from cascade.storing.rows import ImageRow

Ids: TypeAlias = npt.NDArray[np.int64]
Vectors: TypeAlias = npt.NDArray[Any]
"""float16 or float32 [n, d]."""
States: TypeAlias = npt.NDArray[np.uint8]
"""uint8 [n, b], of any content."""


@dataclass(frozen=True)
class Images:
    """The rows of images that were written after some version, all by id.

    Attributes:
        version: of the store, that this is the state of.
        ids: int64 [n], ascending: later rows have larger ids, and none is ever used again.
        keys: of the rows.
        skipped: bool [n], whether a row has a reason in place of embeddings.
        rows: the rows, made when they are asked for.
        present: int64, ascending: the ids of all rows that there are.
    """

    version: int
    ids: Ids
    keys: Sequence[str]
    skipped: npt.NDArray[np.bool_]
    rows: Sequence[ImageRow]
    present: Ids


@dataclass(frozen=True)
class Embeddings:
    """Embeddings [n, d] of one stage, in the order in which they were written, and whose they are.

    `version` is that of the stage's embeddings. Some may belong to images that are gone, or that
    never came.
    """

    version: int
    ids: Ids
    vectors: Vectors


@dataclass(frozen=True)
class Lists:
    """The lists that an inverted file (IVF) of embeddings is made of.

    Attributes:
        number: of lists.
        rows: embeddings in them.
        outside: embeddings in none yet, which every search looks at.
    """

    number: int
    rows: int
    outside: int


class FirstEmbeddings(Protocol):
    """The first stage's embeddings where they are stored, for who holds none of them in memory.

    Some may belong to images that are gone, or that never came. An inverted file (IVF) puts each
    into the list whose centre is nearest to it, and a search looks into a few lists.
    """

    def shape(self) -> tuple[int, int]:
        """How many there are, and their dimension; 0 of none."""

    def ids(self, lowest: int) -> Ids:
        """The ids of those from `lowest` on, in any order."""

    def of(self, ids: Ids) -> Embeddings:
        """Those of these ids, in any order."""

    def blocks(self, lowest: int = 0) -> Iterator[Embeddings]:
        """Those of ids from `lowest` on, a few megabytes at a time."""

    def nearest(self, query: Vectors, number: int, probes: int) -> Embeddings:
        """Those with the largest products with a query [d] in so many lists and outside of them.

        All are looked at where there are no lists. Products are about right: whoever needs an
        order scores what comes back.
        """

    def lists(self) -> Lists | None:
        """The lists that there are, if any."""

    def make_lists(self, number: int) -> None:
        """Make so many lists, in place of others; until then those are used, also if this fails.

        It takes minutes. Called inside of `writing`.
        """

    def extend_lists(self) -> None:
        """Put what is in no list into those that there are. Called inside of `writing`."""


class Store(Protocol):
    """Keeps the images of a collection and what each stage made of them.

    Any thread may read, and any process, without waiting for a writer. What writes is called by
    one thread of one process at a time, inside of `writing`.
    """

    def writing(self) -> AbstractContextManager[None]:
        """The right to write, which one thread of one process has at a time."""

    def version(self) -> int:
        """Larger whenever rows of images have changed; costs next to nothing."""

    def images(self, after: int) -> Images:
        """The rows written after a version; 0: all."""

    def first(self, lowest: int) -> Embeddings:
        """The first stage's embeddings of ids from `lowest` on."""

    def first_embeddings(self) -> FirstEmbeddings:
        """The first stage's embeddings, to be read where they are."""

    def later(self, place: int, after: int) -> Embeddings:
        """A later stage's embeddings that were written after a version of theirs; 0: all."""

    def encoded(self, place: int) -> Ids:
        """The ids of the images whose embeddings a stage has made, in any order."""

    def add(self, rows: Sequence[ImageRow], vectors: Vectors, replaces: bool) -> None:
        """Add rows; in one step they are there, and rows of the same keys no longer.

        Args:
            rows: of different keys.
            vectors: the first stage's embeddings of those rows that have no reason, in order.
            replaces: whether a row of one of these keys may be there.
        """

    def change(self, ids: Sequence[int], rows: Sequence[ImageRow]) -> None:
        """Replace rows that are there; their ids and embeddings stay."""

    def remove(self, ids: Sequence[int]) -> None:
        """Remove rows, and with them their embeddings."""

    def promote(self, place: int, ids: Ids, vectors: Vectors) -> int:
        """Add a later stage's embeddings [n, d] of those ids that have none; says how many.

        An id may come twice, as one that was encoded by a view and again by the view after it.
        """

    def keep_states(self, ids: Ids, states: States) -> None:
        """Keep what a later stage goes on from, of images that are there and have none yet."""

    def states(self, ids: Ids) -> tuple[Ids, States]:
        """The states of those of these ids that have any, each once, and whose they are."""

    def release_states(self, ids: Ids) -> None:
        """Remove the states of images that need them no longer."""

    def kept_states(self) -> tuple[int, int]:
        """Of how many images states are kept, and how many bytes each takes."""

    def compact(self, keep_seconds: float) -> None:
        """Free what is no longer needed: small pieces, embeddings without rows, old versions.

        Args:
            keep_seconds: how old a version must be to go: longer than anyone takes to read it.
        """

    def nbytes(self) -> int:
        """Bytes that the store takes."""

    def close(self) -> None:
        """Let go of files."""


def in_parts(blocks: Iterable[Embeddings], size: int) -> Iterator[Embeddings]:
    """Blocks put together until they hold so many embeddings at least; the last may hold fewer."""
    part: list[Embeddings] = []
    for block in blocks:
        part.append(block)
        if sum(len(some.ids) for some in part) >= size:
            yield _joined(part)
            part = []
    if part:
        yield _joined(part)


def _joined(part: Sequence[Embeddings]) -> Embeddings:
    ids = np.concatenate([some.ids for some in part])
    return Embeddings(part[-1].version, ids, np.concatenate([some.vectors for some in part]))


def places_in(known: Ids, ids: Ids) -> Ids:
    """Where ids are among those known, which ascend; -1: nowhere."""
    if not len(known):
        return np.full(len(ids), -1)
    places = np.searchsorted(known, ids).clip(max=len(known) - 1)
    return np.where(known[places] == ids, places, -1)
