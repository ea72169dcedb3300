"""Processes that write to a collection are killed at random: what they said is done, is done.

KILLS sets how many kills are tried.
"""

import json
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from cascade import Collection
from tests.cascade.known import number_of, of_rows
from tests.cascade.writer import IMAGES, M, promoted, stages
from tests.fresh import ROOT, Process
from tests.lanes import THOROUGH

KILLS = int(os.environ.get("KILLS", "1000" if THOROUGH else "4"))
PATIENCE = 120  # seconds
QUERIES = [str(query) for query in range(0, IMAGES, 7)]


class Expected:
    """What a log says of a collection: for each key the contents that it may have now."""

    def __init__(self):
        self.possible, self.encoded, self.ready = {}, set(), 0

    def read(self, log, start):
        lines = log.read_bytes()[start:] if log.exists() else b""
        for line in lines.splitlines():
            kind, *entry = json.loads(line)
            if kind == "ready":
                self.ready += 1
            elif kind == "encoded":
                self.encoded.update(entry[0])
            else:
                key, number = entry
                known = self.possible.get(key, {None})
                self.possible[key] = {number} if kind == "done" else known | {number}
        return start + len(lines)

    def holds(self, collection):
        """Nothing that was done is lost, nothing is twice, and hits are those of a cascade."""
        rows = list(collection.rows())
        found = {row.key: int(row.uri) for row in rows}
        assert len(found) == len(rows), [key for key, times in Counter(found).items() if times > 1]
        for key, possible in self.possible.items():
            assert found.get(key) in possible, (key, found.get(key), possible)
        assert set(found) <= set(self.possible)
        assert self.encoded <= set(promoted(collection))
        reference = of_rows(stages(), M, rows)
        assert collection.search_many(QUERIES, 9) == reference.search_many(QUERIES, 9)

    def settle(self, collection):
        """What is there now is what must be there from now on: nobody is at work."""
        found = {row.key: int(row.uri) for row in collection.rows()}
        self.possible = {key: {found.get(key)} for key in self.possible}


def rows_are_once(collection):
    """In the tables themselves too, whatever a view makes of them."""
    store = collection._store
    images = store.images(0)
    assert len(set(images.keys)) == len(images.keys)
    for read in (store.first(0), store.later(1, 0)):
        assert len(set(read.ids.tolist())) == len(read.ids)


class Writers:
    """Starts writers, and kills them."""

    def __init__(self, directory):
        self.pipes = [directory / "orders", directory / "started"]
        for pipe in self.pipes:
            os.mkfifo(pipe)
        self.server = Process("-m", "tests.cascade.writer", *self.pipes, cwd=ROOT)
        self.orders = self.pipes[0].open("w", buffering=1)
        self.started = self.pipes[1].open()

    def start(self, path, log, seed, name):
        self.orders.write(json.dumps([str(path), str(log), seed, name]) + "\n")
        return int(self.started.readline())

    def kill(self, numbers):
        """Kill them all; none has ended by itself."""
        for number in numbers:
            assert _lives(number), Path(self.server.streams.name, "err").read_text()[-4000:]
            os.kill(number, signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE
        while any(map(_lives, numbers)):
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def end(self):
        self.orders.close()
        self.server.wait(PATIENCE)


def _lives(number):
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope="module")
def writers(tmp_path_factory):
    server = Writers(tmp_path_factory.mktemp("pipes"))
    yield server
    server.end()


def wait_at_random(log, rng):
    """Until a writer is at work, mostly, and then for a moment."""
    if rng.random() < 0.1:
        time.sleep(rng.uniform(0, 1.0))
        return
    deadline = time.monotonic() + PATIENCE
    while not (log.exists() and log.stat().st_size):
        assert time.monotonic() < deadline, "no writer came to work"
        time.sleep(0.005)
    time.sleep(rng.expovariate(4))


@pytest.mark.parametrize("number", [1, 2])
def test_whatever_is_killed_what_was_done_is_there_once(number, writers, tmp_path):
    """A reader looks on all the while, in this process; and a new one opens it after each kill."""
    rng = random.Random(number)
    path, expected = tmp_path / "collection", Expected()
    Collection.create(path, stages(), M, opener=number_of).close()
    with Collection.open(path, stages(), opener=number_of) as reader:
        for time_of_kill in range(KILLS // 2):
            log = tmp_path / f"log {time_of_kill}"
            names = [f"writer{at}" for at in range(number)]
            started = [writers.start(path, log, rng.randrange(2**30), name) for name in names]
            wait_at_random(log, rng)
            writers.kill(started)
            expected.read(log, 0)
            with Collection.open(path, stages(), opener=number_of) as fresh:
                rows_are_once(fresh)
                expected.holds(fresh)
                expected.holds(reader)
                expected.settle(fresh)
            log.unlink(missing_ok=True)
    assert expected.ready


def test_a_reader_sees_whole_commits_while_two_write(writers, tmp_path):
    """Its hits are those of a cascade over the rows that it shows, at every moment."""
    path, log = tmp_path / "collection", tmp_path / "log"
    Collection.create(path, stages(), M, opener=number_of).close()
    started = [writers.start(path, log, seed, f"writer{seed}") for seed in range(2)]
    end = time.monotonic() + (600 if THOROUGH else 4)
    looks = 0
    with Collection.open(path, stages(), opener=number_of) as reader:
        while time.monotonic() < end or not looks:
            view = reader._current()
            cascade, rows = view.cascade, list(view.rows())
            assert len({row.key for row in rows}) == len(rows)
            if len(rows) > 9:
                found = cascade.search_many(QUERIES, 9)
                assert found == of_rows(stages(), M, rows).search_many(QUERIES, 9)
                looks += 1
    writers.kill(started)
    assert log.exists()
