"""With another first stage a collection is what one made with it would be; or it is as it was."""

import os
import shutil
import signal

import pytest

from cascade import Collection, CollectionError
from cascade.collecting.record import Record
from cascade.collecting.renewing import Renewal
from cascade.storing.errors import MigratedError
from tests.cascade.known import Known, number_of, numbered, of_rows, on_disk
from tests.cascade.migrating.migrator import IMAGES, M, renewed, stages
from tests.cascade.migrating.test_restaging import Migrators
from tests.lanes import sweep

NEW_M = [12]
QUERIES = [str(query) for query in range(0, IMAGES, 7)]


def opened(path):
    """With whatever stages it has now."""
    has = Record.read(path).generation > 0
    first = renewed() if has else stages()[0]
    return Collection.open(path, [first, stages()[1]], opener=number_of)


def check_renewed(now):
    rows = list(now.rows())
    expected = of_rows([renewed(), stages()[1]], now.m, rows).search_many(QUERIES, 9)
    assert now.search_many(QUERIES, 9) == expected


def test_it_finds_what_one_made_with_the_new_stage_does_and_keeps_what_the_last_has_encoded(
    collection,
):
    path, before = collection.path, list(collection.rows())
    encoded, seen = collection.status().encoded, []
    collection.adopt(M)
    collection.renew(Renewal(renewed(), NEW_M, batch_size=7), seen.append)
    assert sum(seen) == encoded[0]
    with opened(path) as now:
        assert list(now.rows()) == before
        assert now.m == tuple(NEW_M)
        assert now.plan is None
        assert now.status().encoded == encoded
        check_renewed(now)
        assert now.add(numbered(range(IMAGES - 10, IMAGES - 1))).added == 9
        check_renewed(now)
    assert sorted(each.name for each in path.glob("*.lance")) == [
        "images.lance",
        *(f"stage-{place}-{Record.read(path).generation}.lance" for place in range(2)),
    ]


def test_what_was_cut_off_goes_on_where_it_was(collection):
    class Interrupted(Known):
        def encode_images(self, images):
            if len(self.asked) >= 32:
                raise KeyboardInterrupt
            return super().encode_images(images)

    path, hits = collection.path, collection.search_many(QUERIES, 9)
    cut_off = Interrupted(5, IMAGES)
    with pytest.raises(KeyboardInterrupt):
        collection.renew(Renewal(cut_off, NEW_M, batch_size=2))
    assert collection.search_many(QUERIES, 9) == hits
    assert collection.add(numbered([IMAGES - 2])).added == 1  # meanwhile
    collection.compact(0)
    again, seen = renewed(), []
    collection.renew(Renewal(again, NEW_M, batch_size=2), seen.append)
    assert seen[0] == 32
    assert not set(again.asked) & set(cut_off.asked) - {8}  # which came twice
    assert len(again.asked) == len(collection) - 32
    with opened(path) as now:
        check_renewed(now)


def test_an_image_that_can_not_be_read_any_more_is_named_and_nothing_has_changed(collection):
    path, hits = collection.path, collection.search_many(QUERIES, 9)
    blind = renewed(unreadable=[3, 4])
    with pytest.raises(CollectionError, match=r"2 images of .*\(image 3: it is broken\)"):
        collection.renew(Renewal(blind, NEW_M))
    assert Record.read(path).generation == 0
    assert collection.search_many(QUERIES, 9) == hits
    collection.remove(["image 3", "image 4"])
    better = renewed()
    collection.renew(Renewal(better, NEW_M))
    assert not better.asked  # all that there are were encoded the first time
    with opened(path) as now:
        check_renewed(now)


def test_who_had_it_open_goes_on_searching_and_writes_no_more(collection):
    path = collection.path
    with Collection.open(path, stages(), opener=number_of) as other:
        hits = other.search_many(QUERIES, 9)
        collection.renew(Renewal(renewed(), NEW_M))
        assert other.search_many(QUERIES, 9) == hits
        with pytest.raises(MigratedError, match="open it again"):
            other.renew(Renewal(renewed(), NEW_M))


def test_what_can_not_have_another_first_stage_is_refused(tmp_path):
    made = Collection.in_memory(stages(), M, opener=number_of)
    with pytest.raises(CollectionError, match="in memory"):
        made.renew(Renewal(renewed(), NEW_M))
    with (
        on_disk(tmp_path / "one", stages()[:1]) as one,
        pytest.raises(CollectionError, match="has one stage"),
    ):
        one.renew(Renewal(renewed(), []))
    with on_disk(tmp_path / "two", stages(), M) as two, pytest.raises(ValueError, match="m"):
        two.renew(Renewal(renewed(), [3, 2]))


@pytest.fixture(scope="module")
def migrators(tmp_path_factory):
    made = Migrators(tmp_path_factory.mktemp("pipes"))
    yield made
    made.orders.close()
    made.server.wait(120)


def test_whenever_it_is_killed_the_old_or_the_new_is_there_whole(collection, migrators, tmp_path):
    hits, rows = collection.search_many(QUERIES, 9), list(collection.rows())
    for step in sweep(range(18), [3, 9, 10]):
        path = tmp_path / f"at {step}"
        shutil.copytree(collection.path, path)
        ended = migrators.run(path, step, "renew")
        with opened(path) as now:
            assert list(now.rows()) == rows
            if Record.read(path).generation:
                check_renewed(now)
            else:
                assert ended == signal.SIGKILL
                assert now.search_many(QUERIES, 9) == hits
        if not Record.read(path).generation:
            assert migrators.run(path, 10**6, "renew") == 0
        with opened(path) as now:
            now.compact(0)
            check_renewed(now)
        assert len([each for each in os.listdir(path) if each.endswith(".lance")]) <= 4
