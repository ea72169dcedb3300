"""After a migration a collection is what one made with the mapped stage would be; or nothing is."""

import json
import os
import shutil
import signal

import numpy as np
import pytest
import torch

from cascade import Collection, CollectionError
from cascade.collecting.record import Record
from cascade.stages.mapped import MappedStage
from cascade.storing.errors import MigratedError
from tests.cascade.known import number_of, numbered, of_rows
from tests.cascade.migrating.migrator import (
    IMAGES,
    NEW_M,
    SEEN,
    M,
    asked,
    new_last,
    stages,
    the_map,
)
from tests.fresh import ROOT, Process
from tests.lanes import sweep

QUERIES = [str(query) for query in range(0, IMAGES, 7)]
STEPS = 12
"""How often a migration comes to a step that reaches the disk, before it and after it."""
NEVER = 10**6
RECORD = 6
"""Before the record is replaced."""


def new_stages():
    first, last = stages()[0], new_last()
    return [MappedStage(first, the_map(), last), last]


def opened(path):
    """With whatever stages it has now."""
    migrated = Record.read(path).generation > 0
    return Collection.open(path, new_stages() if migrated else stages(), opener=number_of)


def check_migrated(collection):
    """Rows are as before, and hits those of a cascade over images that are mapped."""
    first, last = new_stages()
    rows = list(collection.rows())
    stored = stages()[0].table.half().float()
    first.stage.table = stored  # maps were given what was kept
    expected = of_rows([first, last], NEW_M, rows).search_many(QUERIES, 9)
    found = collection.search_many(QUERIES, 9)
    for here, there in zip(found, expected, strict=True):
        assert [(hit.key, hit.stage) for hit in here] == [(hit.key, hit.stage) for hit in there]
        scores = [[hit.score for hit in hits] for hits in (here, there)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-3)


def test_a_migrated_collection_finds_what_one_made_with_its_stages_does(collection):
    path, before = collection.path, list(collection.rows())
    collection.restage(asked(collection))
    with opened(path) as now:
        assert list(now.rows()) == before
        assert now.m == tuple(NEW_M)
        assert now.status().encoded == (len(now), SEEN)
        check_migrated(now)
    assert sorted(each.name for each in path.glob("stage-*")) == [
        f"stage-{place}-{Record.read(path).generation}.lance" for place in range(2)
    ]


def test_what_the_new_last_stage_has_encoded_it_does_not_encode_again(collection):
    path = collection.path
    collection.restage(asked(collection))
    first, last = new_stages()
    with Collection.open(path, [first, last], opener=number_of) as now:
        now.refine()
        assert sorted(last.asked) == sorted(set(range(SEEN, IMAGES - 10)) - {7})
        assert not first.stage.asked


def test_images_that_come_later_are_mapped_and_get_ids_of_their_own(collection):
    path = collection.path
    used = {collection.id_of(row.key) for row in collection.rows()}
    collection.restage(asked(collection))
    with opened(path) as now:
        assert now.add(numbered(range(IMAGES - 10, IMAGES - 1))).added == 9
        added = {now.id_of(f"image {number}") for number in range(IMAGES - 10, IMAGES - 1)}
        assert min(added) > max(used)
        check_migrated(now)
    with opened(path) as again:
        check_migrated(again)


def test_a_collection_is_migrated_again(collection):
    path = collection.path
    collection.restage(asked(collection))
    with opened(path) as now:
        wanted = asked(now)
        square = type(wanted.map)(torch.eye(12), torch.zeros(12))
        now.restage(type(wanted)(square, wanted.last, [10], wanted.ids, wanted.vectors))
        found = now.search_many(QUERIES, 9)
    first, last = new_stages()
    twice = MappedStage(first, square, last)
    with Collection.open(path, [twice, last], opener=number_of) as again:
        assert again.m == (10,)
        for one, other in zip(found, again.search_many(QUERIES, 9), strict=True):
            assert {hit.key for hit in one if hit.stage} >= {hit.key for hit in other[:5]}
    assert len(list(path.glob("maps-*"))) == 1


def test_who_had_it_open_goes_on_searching_and_writes_no_more(collection):
    path = collection.path
    with Collection.open(path, stages(), opener=number_of) as other:
        hits = other.search_many(QUERIES, 9)
        with Collection.open(path, stages(), opener=number_of) as migrating:
            migrating.restage(asked(migrating))
        with opened(path) as now:
            now.add(numbered([IMAGES - 2]))
        for _ in range(2):
            assert other.search_many(QUERIES, 9) == hits
            other._refreshed = 0.0  # as if it had not looked for a while
        for write in (
            lambda: other.add(numbered([IMAGES - 3])),
            lambda: other.remove(["image 1"]),
            lambda: other.adopt([3]),
            lambda: other.restage(asked(other)),
            other.compact,
        ):
            with pytest.raises(MigratedError, match="open it again"):
                write()
    with opened(path) as now:
        assert f"image {IMAGES - 3}" not in now
        assert "image 1" in now
        check_migrated(now)


def test_a_migration_that_fails_leaves_all_as_it_was(collection, monkeypatch):
    def full(self, path):
        raise OSError(28, "No space left on device")

    hits, there = collection.search_many(QUERIES, 9), sorted(os.listdir(collection.path))
    monkeypatch.setattr(Record, "write", full)
    with pytest.raises(CollectionError, match="No space left"):
        collection.restage(asked(collection))
    monkeypatch.undo()
    assert sorted(os.listdir(collection.path)) == there
    assert collection.search_many(QUERIES, 9) == hits
    assert collection.add(numbered([IMAGES - 2])).added == 1


def test_a_collection_in_memory_is_refused():
    made = Collection.in_memory(stages(), M, opener=number_of)
    made.add(numbered(range(SEEN)))
    with pytest.raises(CollectionError, match="in memory"):
        made.restage(asked(made))


class Migrators:
    """Starts migrations that are killed at a step."""

    def __init__(self, directory):
        self.pipes = [directory / "orders", directory / "ended"]
        for pipe in self.pipes:
            os.mkfifo(pipe)
        self.server = Process("-m", "tests.cascade.migrating.migrator", *self.pipes, cwd=ROOT)
        self.orders = self.pipes[0].open("w", buffering=1)
        self.ended = self.pipes[1].open()

    def run(self, path, step, kind="restage"):
        """The signal that ended it."""
        self.orders.write(json.dumps([str(path), step, kind]) + "\n")
        return int(self.ended.readline())


@pytest.fixture(scope="module")
def migrators(tmp_path_factory):
    made = Migrators(tmp_path_factory.mktemp("pipes"))
    yield made
    made.orders.close()
    made.server.wait(120)


def test_whenever_it_is_killed_the_old_or_the_new_is_there_whole(collection, migrators, tmp_path):
    """With a reader that has it open all the while; and it is done when it is tried again."""
    hits, rows = collection.search_many(QUERIES, 9), list(collection.rows())
    for step in sweep(range(STEPS), [RECORD, RECORD + 1, RECORD + 3]):
        path = tmp_path / f"at {step}"
        shutil.copytree(collection.path, path)
        with opened(path) as reader:
            assert reader.search_many(QUERIES, 9) == hits
            assert migrators.run(path, step) == signal.SIGKILL
            assert reader.search_many(QUERIES, 9) == hits
        assert (Record.read(path).generation > 0) == (step > RECORD)
        with opened(path) as now:
            assert list(now.rows()) == rows
            if step > RECORD:
                check_migrated(now)
            else:
                assert now.search_many(QUERIES, 9) == hits
        if step <= RECORD:
            assert migrators.run(path, NEVER) == 0
        with opened(path) as now:
            now.compact(0)
            check_migrated(now)
        kept = [f"stage-{place}-{Record.read(path).generation}.lance" for place in range(2)]
        assert sorted(each.name for each in path.glob("stage-*")) == kept


def test_the_ids_of_a_sample_that_are_gone_are_left_out(collection):
    wanted = asked(collection)
    collection.remove(["image 0"])
    collection.restage(wanted)
    with opened(collection.path) as now:
        assert now.status().encoded[1] == SEEN - 1
        assert np.isfinite(now.search("1", 3)[0].score)
