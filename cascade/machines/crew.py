"""A crew: workers of a Ray cluster that encode what is added to a collection of this process.

This process finds the photos, hands them out in batches and commits what comes back, in order; the
workers do what takes long. They share nothing but the photos and the checkpoint, so one that dies
costs a batch or two, which go to another, and a new one is asked for in its place.
"""

import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from importlib.metadata import version
from types import TracebackType
from typing import Any, TypeAlias

from cascade.collecting.offers import Addition
from cascade.machines.cluster import Needs, imported_ray, joined, room_for
from cascade.machines.turns import Turn, Turns
from cascade.machines.worker import Answer, Job, Probe, Worker, probes_of
from cascade.photos.changes import Change, Kind
from cascade.photos.preparing import is_settled
from cascade.storing.errors import CollectionError

AT_ONCE = 2
"""Batches that a worker has in hand: it decodes one while it encodes the other."""
WAITING = 4
"""Batches for each worker that are under way, those included that wait for an earlier one."""
TRIES = 4
"""Workers that may be lost over one batch."""
PATIENCE = 600.0
"""Seconds to wait for a worker where there is none."""
_SETTLED = 4096  # photos of a batch that need no worker

_Batch: TypeAlias = "list[Change]"


class _State(Enum):
    ASKED = "for its version"
    BEGINNING = "to load the stage"
    READY = "for photos"


@dataclass(eq=False)
class _Hand:
    """A worker, as it is seen from here."""

    actor: Any
    state: _State = _State.ASKED
    busy: int = 0
    machine: str = ""

    @property
    def is_free(self) -> bool:
        """Whether it can be given a batch."""
        return self.state is _State.READY and self.busy < AT_ONCE


class Crew:
    """Workers for one collection; a context manager. One thread may use it.

    Attributes:
        job: what they do.
        lost: how many workers have died so far.
    """

    def __init__(self, address: str, job: Job, needs: Needs | None = None) -> None:
        """Join a cluster; workers are asked for when there is something to do.

        Args:
            address: `local`, `auto` for the cluster that this machine belongs to, `host:6379`, or
                `ray://host:10001`.
            job: what workers do.
            needs: how many, and of what.

        Raises:
            CollectionError: Ray isn't installed, there is no such cluster, or it has no room for a
                worker.
        """
        self.job = job
        self.lost = 0
        self._needs = needs or Needs()
        self._ray = imported_ray()
        self._joined = joined(self._ray, address, self._needs)
        self._hands: list[_Hand] = []
        self._probes: list[Probe] = []
        self._calls: dict[Any, tuple[_Hand, Turn[_Batch, Answer] | None]] = {}
        self._heard = time.monotonic()  # when a worker has answered last
        self._failed = 0  # workers that died since a batch was done last
        try:
            self._count = room_for(self._needs, self._ray)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Crew":
        """The crew."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let the workers go."""
        self.close()

    @property
    def machines(self) -> list[str]:
        """Where each worker is that has begun: machine and process."""
        return [hand.machine for hand in self._hands if hand.machine]

    def additions(self, changes: Iterable[Change]) -> Generator["Addition | None", None, None]:
        """What comes of photos, in their order: rows and embeddings; None: gone by now.

        As `Preparing` of `cascade.upkeep`. Batches hold the same photos as without workers, so
        embeddings are the same too.

        Raises:
            CollectionError: workers can't begin, or die again and again.
        """
        turns: Turns[_Batch, Answer] = Turns(
            _batches(changes, self.job.batch_size), WAITING * self._count
        )
        self._heard = time.monotonic()
        try:
            while True:
                self._hand_out(turns)
                for batch, answer in turns.finished():
                    yield from _in_order(batch, answer)
                if turns.over:
                    return
                self._wait(turns)
        finally:
            self._forget()

    def close(self) -> None:
        """Let the workers go, and leave the cluster if this joined it."""
        self._forget()
        with suppress(OSError, RuntimeError, self._ray.exceptions.RayError):  # a lost cluster
            for hand in self._hands:
                self._ray.kill(hand.actor)
        self._hands = []
        if self._joined:
            self._ray.shutdown()
        self._joined = False

    def _hand_out(self, turns: Turns[_Batch, Answer]) -> None:
        """Give batches to workers that are free, as long as there are any of both."""
        while True:
            free = [hand for hand in self._hands if hand.is_free]
            if self._hands and not free:
                return
            turn = turns.next()
            if turn is None:
                return
            wanted = [change for change in turn.item if not is_settled(change)]
            if not wanted:
                turn.result = Answer.none()
            elif not free:
                self._probes = probes_of(wanted)
                self._hands = [self._new() for _ in range(self._count)]
                turns.again(turn)
            else:
                hand = min(free, key=lambda hand: hand.busy)
                hand.busy += 1
                self._calls[hand.actor.encode.remote(wanted)] = hand, turn

    def _wait(self, turns: Turns[_Batch, Answer]) -> None:
        """Wait a moment for a worker to answer, and take what it says."""
        answered, _ = self._ray.wait(list(self._calls), num_returns=1, timeout=1.0)
        for call in answered:
            self._take(call, turns)
        silence = time.monotonic() - self._heard
        if silence > PATIENCE and not self.machines:
            raise CollectionError(
                f"no worker has begun for {silence:.0f} s: {self._needs} are nowhere free in the "
                "cluster"
            )

    def _take(self, call: Any, turns: Turns[_Batch, Answer]) -> None:
        hand, turn = self._calls.pop(call)
        try:
            said = self._ray.get(call)
        except self._ray.exceptions.RayTaskError as error:  # the worker lives, and has raised this
            raise (error.cause if isinstance(error.cause, Exception) else error) from None
        except self._ray.exceptions.RayError as error:
            self._lose(hand, turn, turns, error)
            return
        self._heard = time.monotonic()
        if turn is not None:
            turn.result = said
            hand.busy -= 1
            self._failed = 0
        elif hand.state is _State.ASKED:
            _check_release(said)
            hand.state = _State.BEGINNING
            self._calls[hand.actor.begin.remote(self.job, self._probes)] = hand, None
        else:
            hand.state, hand.machine = _State.READY, said

    def _lose(
        self,
        hand: _Hand,
        turn: Turn[_Batch, Answer] | None,
        turns: Turns[_Batch, Answer],
        error: Exception,
    ) -> None:
        """A worker is gone: what it had in hand goes to others, and a new one takes its place.

        Raises:
            CollectionError: this happens again and again.
        """
        calls = [call for call, (whose, _) in self._calls.items() if whose is hand]
        left = [turn, *(self._calls.pop(call)[1] for call in calls)]
        self.lost += 1
        self._failed += 1
        self._hands.remove(hand)
        self._ray.kill(hand.actor)
        for each in left:
            if each is not None:
                each.lost += 1
                _check_tries(each, hand)
                turns.again(each)
        if self._failed >= max(TRIES, 2 * self._count):
            said = str(error).strip().splitlines()[-1:] or [type(error).__name__]
            raise CollectionError(
                f"{self._failed} workers died one after the other when they were asked "
                f"{hand.state.value}; is clip-cascade {_release()} installed on all machines, and "
                f"have they enough memory? The last one: {' '.join(said[0].split())}"
            )
        self._hands.append(self._new())

    def _new(self) -> _Hand:
        """A worker, which begins as soon as a machine has room for it."""
        made = self._ray.remote(
            num_cpus=self._needs.cpus,
            num_gpus=self._needs.gpus,
            max_restarts=0,
            max_concurrency=AT_ONCE,
        )(Worker)
        hand = _Hand(made.remote())
        self._calls[hand.actor.release.remote()] = hand, None
        return hand

    def _forget(self) -> None:
        """Drop what workers have in hand, if the iteration ended before it was done."""
        self._calls = {call: known for call, known in self._calls.items() if known[1] is None}
        for hand in self._hands:
            hand.busy = 0


def _batches(changes: Iterable[Change], size: int) -> Iterator[_Batch]:
    """The batches that `Collection.add` would make of the same photos."""
    batch: _Batch = []
    counted = 0
    for change in changes:
        batch.append(change)
        counted += change.kind is not Kind.TOUCHED or change.row.reason is not None
        if counted == size or len(batch) == _SETTLED:
            yield batch
            batch, counted = [], 0
    if batch:
        yield batch


def _in_order(batch: _Batch, answer: Answer) -> Iterator["Addition | None"]:
    """What a collection is given of a batch, of whose photos a worker was given some."""
    made = iter(answer.additions())
    for change in batch:
        yield change.row if is_settled(change) else next(made)


def _check_release(there: str) -> None:
    if there != _release():
        raise CollectionError(
            f"a worker has clip-cascade {there}, this is {_release()}: install the same version on "
            "all machines"
        )


def _check_tries(turn: Turn[_Batch, Answer], hand: _Hand) -> None:
    if turn.lost >= TRIES:
        keys = [change.row.key for change in turn.item]
        raise CollectionError(
            f"{turn.lost} workers died over the same {len(keys)} photos, the last on "
            f"{hand.machine}: give workers more memory, or leave out the photo that is to blame, "
            f"probably one of {keys[0]} to {keys[-1]}"
        )


def _release() -> str:
    return version("clip-cascade")
