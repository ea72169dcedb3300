"""Two indexers and a server at once, as three processes that a user runs, some of them killed.

SIDE_BY_SIDE sets for how many seconds.
"""

import json
import os
import random
import signal
import time
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from cascade import Collection, Stage
from cascade.photos.finding import Photos
from cascade.upkeep import bring_up_to_date
from tests.cascade.photos.conftest import painted
from tests.conftest import tiny_clip, tiny_processor
from tests.fresh import ROOT, Process
from tests.lanes import thorough_only

pytest.importorskip("lancedb")
pytest.importorskip("fastapi")

SECONDS = float(os.environ.get("SIDE_BY_SIDE", "600"))
PATIENCE = 120  # seconds
QUERIES = ["a red disc", "a blue star", "a small green square", "disc of the left"]
K = 7


class Indexer:
    """Runs `cascade.index` on a directory of its own, again and again; the directory changes."""

    def __init__(self, photos: Path, collection: Path, seed: int):
        self.photos, self.collection = photos, collection
        self.runs, self.kills = 0, 0
        self._rng = random.Random(seed)
        self._made = 0
        self._running: Process | None = None
        self._killed_at = 0.0
        self._pruned = False
        self._add(6)

    def step(self) -> None:
        """Change the directory and start a run, or look after the one that is on."""
        if self._running is None:
            self._add(self._rng.randrange(1, 6))
            if self._pruned:  # else more photos might be gone than candidates can make up for
                self._drop()
            self.start()
        elif not self._running.process.is_alive():
            self.finish()
        elif time.monotonic() > self._killed_at:
            self._running.send_signal(signal.SIGKILL)
            self._running.process.join(PATIENCE)
            self._running, self._pruned, self.kills = None, False, self.kills + 1

    def start(self) -> None:
        line = ["-m", "cascade.index", self.photos, "--into", self.collection, "--prune"]
        self._running = Process(*line, cwd=ROOT)
        self._killed_at = time.monotonic() + self._rng.expovariate(1 / 20)

    def finish(self) -> None:
        """Wait for the run; it must have succeeded."""
        if self._running is None:
            return
        ended = self._running.wait(PATIENCE)
        assert ended.returncode == 0, ended.stderr
        self._running, self._pruned, self.runs = None, True, self.runs + 1

    def _add(self, number: int) -> None:
        for _ in range(number):
            painted(self.photos / f"{self._made}.png")
            self._made += 1

    def _drop(self) -> None:
        there = sorted(self.photos.iterdir())
        if len(there) > 12:
            self._rng.choice(there).unlink()


class Served:
    """The collection's server, a process of its own that also refines."""

    def __init__(self, collection: Path):
        line = ["-m", "cascade.serve", collection, "--port", "0", "--refine", "1.0"]
        self._process = Process(*line, cwd=ROOT)
        said, end = Path(self._process.streams.name, "out"), time.monotonic() + PATIENCE
        while not (said.exists() and "photos at" in said.read_text()):
            assert self._process.process.is_alive()
            assert time.monotonic() < end
            time.sleep(0.1)
        self._home = said.read_text().split(" at ")[1].split()[0]

    def hits(self, text: str) -> list[dict]:
        body = json.dumps({"text": text, "k": K}).encode()
        request = Request(f"{self._home}/search", body, {"Content-Type": "application/json"})
        with urlopen(request, timeout=PATIENCE) as answer:
            assert answer.status == 200
            return json.load(answer)["hits"]

    def end(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        ended = self._process.wait(PATIENCE)
        assert ended.returncode == 0, ended.stderr


@pytest.fixture
def checkpoints(tmp_path):
    places = [tmp_path / "first", tmp_path / "last"]
    for seed, place in enumerate(places):
        tiny_clip(seed).save_pretrained(place)
        tiny_processor().save_pretrained(place)
    return places


def undisturbed(place: Path, photos: list[Path], stages: list[Stage]) -> Collection:
    """A collection of the same photos that one process made, without a break."""
    collection = Collection.create(place, stages, m=[9])
    bring_up_to_date(collection, Photos.at([str(path) for path in photos]))
    return collection


def found(collection: Collection) -> list[list[tuple[str, float]]]:
    return [[(hit.key, hit.score) for hit in hits] for hits in collection.search_many(QUERIES, K)]


@thorough_only
def test_two_indexers_and_a_server_leave_what_one_indexer_would(checkpoints, tmp_path):
    path = tmp_path / "c.cascade"
    stages = [Stage.load(checkpoint) for checkpoint in checkpoints]
    Collection.create(path, stages, m=[9]).close()
    indexers = [Indexer(tmp_path / f"photos {n}", path, n) for n in range(2)]
    for indexer in indexers:
        indexer.start()
        indexer.finish()
    server, asked, end = Served(path), 0, time.monotonic() + SECONDS
    while time.monotonic() < end:
        for indexer in indexers:
            indexer.step()
        hits = server.hits(QUERIES[asked % len(QUERIES)])
        keys = [hit["key"] for hit in hits]
        assert len(set(keys)) == len(keys) == K
        assert [hit["score"] for hit in hits] == sorted((h["score"] for h in hits), reverse=True)
        asked += 1
    for indexer in indexers:
        indexer.finish()
        indexer.start()
        indexer.finish()
    server.hits(QUERIES[0])
    server.end()
    photos = [indexer.photos for indexer in indexers]
    with (
        Collection.open(path, stages) as collection,
        undisturbed(tmp_path / "other", photos, stages) as other,
    ):
        keys = [row.key for row in collection.rows()]
        assert sorted(keys) == sorted(row.key for row in other.rows())
        assert len(set(keys)) == len(keys)
        assert found(collection) == found(other)
    print(f"{asked} searches, {[(each.runs, each.kills) for each in indexers]} runs and kills")
