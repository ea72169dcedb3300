"""Searching a collection again and again while another process indexes into it."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import Tensor

from cascade.collection import Collection
from evaluation.reports.indexing.report import Look

_POLL = 0.2
"""Seconds from one look at the process to the next, and until there is something to search."""


class IndexingError(Exception):
    """The process that indexes has failed; one line, as it said why."""


@dataclass
class Seen:
    """One search of all queries: when the first and the last were answered, and what was found."""

    first: float
    seconds: float
    searching: float
    images: int
    encoded: int
    found: list[set[str]]


@dataclass
class Asking:
    """The queries and how they are asked; their texts are embedded once, before the clock runs."""

    collection: Collection
    queries: Sequence[str]
    k: int
    refined: bool
    embedded: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.embedded = self.collection.encode_texts(self.queries)

    def now(self, begun: float) -> Seen:
        """Search all queries over what is there, one after the other as a user would."""
        started = time.perf_counter()
        found, answered = [], []
        for at in range(len(self.queries)):
            query = [embeddings[at : at + 1] for embeddings in self.embedded]
            (hits,) = self.collection.search_embeddings(query, self.k, self.refined)
            found.append({str(hit.key) for hit in hits})
            answered.append(time.perf_counter())
        cascade = self.collection.cascade
        return Seen(
            first=answered[0] - begun,
            seconds=answered[-1] - begun,
            searching=answered[-1] - started,
            images=len(cascade),
            encoded=cascade.encoded[-1],
            found=found,
        )


def looked(
    arguments: Sequence[str],
    asking: Asking,
    every: float,
    progress: Callable[[int], None] | None = None,
) -> tuple[Look, ...]:
    """Search while `cascade.index` runs, and once more when it has ended.

    Args:
        arguments: of `cascade.index`.
        asking: what is searched.
        every: seconds from one search of all queries to the next.
        progress: told after each how many images can be searched.

    Returns:
        What was found each time, compared with the last: the collection's finished state. Looks at
        fewer than k images are left out; none is left if there are never more.

    Raises:
        IndexingError: indexing failed.
    """
    begun = time.perf_counter()
    seen: list[Seen] = []
    with _indexing(arguments) as process:
        for _ in _times(process, every, lambda: len(asking.collection) >= asking.k):
            seen.append(asking.now(begun))
            if progress is not None:
                progress(seen[-1].images)
    if len(asking.collection) < asking.k:
        return ()
    seen.append(asking.now(begun))
    final = seen[-1]
    return tuple(
        Look(
            first=one.first,
            seconds=one.seconds,
            searching=one.searching / len(asking.queries),
            images=one.images,
            encoded=one.encoded,
            agreement=_agreement(final.found, one.found),
        )
        for one in seen
    )


def _agreement(final: Sequence[set[str]], found: Sequence[set[str]]) -> float:
    """Share of the finished results that were found, the mean over queries, in percent."""
    shares = [len(last & now) / len(last) for last, now in zip(final, found, strict=True)]
    return 100 * sum(shares) / len(shares)


def _times(
    process: "subprocess.Popen[bytes]", every: float, ready: Callable[[], bool]
) -> Iterator[None]:
    """Now, as soon as there is something to search, and then at every tick while it runs."""
    while process.poll() is None and not ready():
        time.sleep(_POLL)
    following = time.monotonic()
    while process.poll() is None:
        if time.monotonic() >= following:
            following = time.monotonic() + every
            yield
        time.sleep(_POLL)


@contextmanager
def _indexing(arguments: Sequence[str]) -> Iterator["subprocess.Popen[bytes]"]:
    """`cascade.index` in a process of its own, which doesn't outlive this.

    Raises:
        IndexingError: it failed.
    """
    with tempfile.TemporaryFile() as said:
        command = [sys.executable, "-m", "cascade.index", *arguments]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said
        )
        try:
            yield process
            failed = process.wait() != 0
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
        if failed:
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
            raise IndexingError(lines[-1] if lines else f"it ended with {process.returncode}")
