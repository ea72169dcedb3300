"""Both stores keep what they are given, each call as a whole, and give it back by id."""

import os
import threading
import time
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade.storing.lance import LanceStore
from cascade.storing.memory import MemoryStore
from cascade.storing.rows import ImageRow
from tests.lanes import examples

KINDS = {
    "memory": lambda path, precision: MemoryStore(3, precision),
    "lance": lambda path, precision: LanceStore(path, 3, precision),
}


@pytest.fixture(params=KINDS)
def make(request, tmp_path):
    return lambda precision="float16": KINDS[request.param](tmp_path, precision)


@pytest.fixture
def store(make):
    return make()


def rows(*keys, **fields):
    return [ImageRow(key, f"file of {key}", **fields) for key in keys]


def vectors(*values):
    return np.asarray(values, np.float32)[:, None] * np.ones(4, np.float32)


def put(store, *keys, replaces=False, **fields):
    with store.writing():
        store.add(rows(*keys, **fields), vectors(*range(len(keys))), replaces)
    return store.images(0).ids[-len(keys) :]


def seen(store):
    """All that a store holds, by key: row and first embedding."""
    images, first = store.images(0), store.first(0)
    by_id = {at: vector[0] for at, vector in zip(first.ids.tolist(), first.vectors, strict=True)}
    assert images.present.tolist() == images.ids.tolist() == sorted(set(images.ids.tolist()))
    assert [row.key for row in images.rows] == list(images.keys)
    assert [row.reason is not None for row in images.rows] == images.skipped.tolist()
    return {
        row.key: (row, None if row.reason is not None else by_id[at])
        for at, row in zip(images.ids.tolist(), images.rows, strict=True)
    }


def test_an_empty_store_has_nothing(store):
    images = store.images(0)
    assert (images.version, len(images.ids), len(images.rows), len(images.present)) == (0, 0, 0, 0)
    assert (len(store.first(0).ids), len(store.later(1, 0).ids)) == (0, 0)
    assert len(store.encoded(1)) == 0
    store.compact(0)
    assert store.version() == 0


def test_rows_come_back_word_for_word(store):
    full = ImageRow("ключ\n'\"", "file:///%ff", 2**40, 2**62, "0f" * 16, None, '{"a": "ü"}')
    skipped = ImageRow("b", "b", reason="it's broken")
    with store.writing():
        store.add([full, skipped, ImageRow("c", "c")], vectors(1, 2), replaces=False)
    images = store.images(0)
    assert list(images.rows) == [full, skipped, ImageRow("c", "c")]
    assert images.rows[1] == skipped
    assert list(images.rows[1:]) == list(images.rows)[1:]
    assert images.skipped.tolist() == [False, True, False]
    assert store.first(0).ids.tolist() == images.ids[[0, 2]].tolist()


@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_embeddings_are_rounded_to_their_precision_and_no_further(make, precision):
    store = make(precision)
    generator = np.random.default_rng(0)
    given = generator.standard_normal((7, 5)).astype(np.float32)
    with store.writing():
        store.add(rows(*"abcdefg"), given, replaces=False)
        ids = store.images(0).ids
        assert store.promote(2, ids[2:5], given[2:5]) == 3
    first, later = store.first(0), store.later(2, 0)
    assert first.vectors.dtype == later.vectors.dtype == precision
    np.testing.assert_array_equal(first.vectors, given.astype(precision))
    np.testing.assert_array_equal(later.vectors, given[2:5].astype(precision))
    assert later.ids.tolist() == ids[2:5].tolist()


def test_only_what_is_new_is_read(store):
    ids = put(store, "a", "b")
    before = store.images(0)
    assert store.images(before.version).ids.tolist() == []
    with store.writing():
        store.promote(1, ids[:1], vectors(5))
    first = store.later(1, 0)
    assert store.later(1, first.version).ids.tolist() == []
    new = put(store, "c")
    with store.writing():
        store.promote(1, ids, vectors(5, 6))
    after = store.images(before.version)
    assert (after.ids.tolist(), list(after.keys)) == (new.tolist(), ["c"])
    assert after.version > before.version
    assert after.present.tolist() == [*ids.tolist(), *new.tolist()]
    assert store.later(1, first.version).ids.tolist() == ids[1:].tolist()
    assert store.first(int(new[0])).ids.tolist() == new.tolist()


def test_the_version_tells_of_rows_that_came_changed_or_went(store):
    versions = [store.version()]
    for change in (
        lambda: put(store, "a", "b"),
        lambda: store.change(store.images(0).ids[:1].tolist(), rows("c")),
        lambda: put(store, "b", replaces=True),
        lambda: store.remove(store.images(0).ids[:1].tolist()),
    ):
        with store.writing():
            change()
        versions.append(store.version())
    assert versions == sorted(set(versions))


def test_a_row_replaces_the_one_of_its_key_and_gets_another_id(store):
    old = put(store, "a", "b", "c")
    with store.writing():
        store.add(rows("d", "b", size=7), vectors(8, 9), replaces=True)
    images = store.images(0)
    assert sorted(images.keys) == ["a", "b", "c", "d"]
    assert old[1] not in images.present
    assert seen(store)["b"] == (rows("b", size=7)[0], 9)
    assert images.ids[list(images.keys).index("b")] > old.max()


def test_a_skipped_row_gives_way_to_one_that_could_be_read(store):
    with store.writing():
        store.add(rows("a", reason="no"), np.empty((0, 0), np.float32), replaces=False)
    assert seen(store) == {"a": (rows("a", reason="no")[0], None)}
    put(store, "a", replaces=True)
    assert seen(store) == {"a": (rows("a")[0], 0)}


def test_a_row_that_changes_keeps_its_id_and_embeddings(store):
    ids = put(store, "a", "b")
    with store.writing():
        store.change([int(ids[0])], rows("moved", modified=5))
    assert store.images(0).ids.tolist() == ids.tolist()
    assert seen(store) == {"moved": (rows("moved", modified=5)[0], 0), "b": (rows("b")[0], 1)}


def test_an_id_is_never_used_again(store):
    used = set()
    for number in range(4):
        ids = put(store, f"a{number}", f"b{number}").tolist()
        assert not used & set(ids)
        assert not used or min(ids) > max(used)
        used.update(ids)
        with store.writing():
            store.remove(ids)
        store.compact(0)
    with store.writing():
        store.add(rows("s", reason="no"), np.empty((0, 0), np.float32), replaces=False)
        store.add(rows("t", reason="no"), np.empty((0, 0), np.float32), replaces=False)
    assert len(set(store.images(0).ids.tolist()) - used) == 2


def test_an_image_is_promoted_once(store):
    ids = put(store, "a", "b", "c")
    with store.writing():
        assert store.promote(1, ids[:2], vectors(1, 2)) == 2
        twice = np.concatenate([ids[::-1], ids])
        assert store.promote(1, twice, vectors(9, 8, 7, 3, 2, 1)) == 1
        assert store.promote(1, ids, vectors(7, 8, 9)) == 0
        assert store.promote(2, ids[:1], vectors(4)) == 1
    later = store.later(1, 0)
    assert later.ids.tolist() == ids.tolist()
    assert later.vectors[:, 0].tolist() == [1, 2, 9]
    assert [sorted(store.encoded(place)) for place in range(3)] == [
        ids.tolist(),
        ids.tolist(),
        ids[:1].tolist(),
    ]


def test_compaction_sweeps_embeddings_whose_rows_are_gone_and_keeps_the_rest(store):
    ids = put(store, *"abcdef")
    with store.writing():
        store.promote(1, ids, vectors(*range(6)))
        store.remove(ids[1:3].tolist())
    before = seen(store)
    store.compact(0)
    assert seen(store) == before
    stay = ids[[0, 3, 4, 5]].tolist()
    assert store.first(0).ids.tolist() == stay
    assert store.later(1, 0).ids.tolist() == stay
    assert store.later(1, 0).vectors[:, 0].tolist() == [0, 3, 4, 5]


def test_states_come_back_by_id_until_they_are_released_or_their_rows_are_gone(store):
    ids = put(store, "a", "b", "c", "d")
    kept = np.random.default_rng(0).integers(0, 256, (3, 50), np.uint8)
    assert store.kept_states() == (0, 0)
    assert store.states(ids)[0].tolist() == []
    with store.writing():
        store.keep_states(ids[:2], kept[:2])
        store.keep_states(ids[2:3], kept[2:])
    assert store.kept_states() == (3, 50)
    found, states = store.states(ids[[3, 2, 0]])
    by_id = dict(zip(found.tolist(), states.tolist(), strict=True))
    assert by_id == {ids[0]: kept[0].tolist(), ids[2]: kept[2].tolist()}
    assert store.states(ids[:0])[0].tolist() == []
    store.release_states(ids[[0, 3]])
    assert sorted(store.states(ids)[0].tolist()) == ids[1:3].tolist()
    with store.writing():
        store.remove([ids[1]])
    store.compact(keep_seconds=0)
    assert store.states(ids)[0].tolist() == [ids[2]]
    assert store.states(ids)[1].tolist() == [kept[2].tolist()]
    assert store.kept_states() == (1, 50)


def test_whoever_reads_while_old_versions_are_removed_reads_all(store):
    ids = put(store, *(f"{number}" for number in range(500)))
    with store.writing():
        store.promote(1, ids, vectors(*range(500)))
    stop, failed = threading.Event(), []

    def compact():
        while not stop.is_set():
            with store.writing():
                store.change(ids[:1].tolist(), rows("0"))
                store.promote(1, ids[-1:] + 1, vectors(1))
            store.compact(0)

    def read(other):
        try:
            for _ in range(20):
                assert len(other.images(0).ids) == 500
                assert set(ids) <= set(other.later(1, 0).ids)
        except BaseException as error:
            failed.append(error)

    writer = threading.Thread(target=compact)
    writer.start()
    others = [LanceStore(store.path, 3) for _ in range(2)] if hasattr(store, "path") else [store]
    readers = [threading.Thread(target=read, args=(other,)) for other in others]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    stop.set()
    writer.join()
    assert failed == []


def test_one_thread_writes_at_a_time(store):
    inside, most = [], []

    def write(number):
        with store.writing(), store.writing():  # the same thread may twice
            inside.append(number)
            most.append(len(inside))
            put(store, f"{number}")
            inside.remove(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(store.images(0).ids) == 6


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(
            ["add", "add", "skip", "replace", "change", "remove", "promote", "compact"]
        ),
        st.integers(0, 2**20),
    ),
    max_size=12,
)


@settings(deadline=None, max_examples=examples(6, 100))
@given(operations=OPERATIONS)
def test_both_stores_hold_the_same_whatever_was_done_to_them(operations, tmp_path_factory):
    stores = [make(tmp_path_factory.mktemp("store"), "float16") for make in KINDS.values()]
    numbers = count()
    for name, seed in operations:
        for store in stores:
            store.seed = np.random.default_rng(seed)
        _apply(name, stores, numbers)
        held, other = map(seen, stores)
        assert held == other
        assert _promoted(stores[0]) == _promoted(stores[1])


def _apply(name, stores, numbers):
    known = sorted(seen(stores[0]))
    number = next(numbers)
    for store in stores:
        some = [key for key in known if store.seed.random() < 0.4]
        images = store.images(0)
        places = dict(zip(images.keys, images.ids.tolist(), strict=True))
        ids = np.asarray([places[key] for key in some], np.int64)
        with store.writing():
            if name == "add":
                store.add(rows(f"a{number}", f"b{number}"), vectors(number, -number), False)
            elif name == "skip":
                nothing = np.empty((0, 0), np.float32)
                store.add(rows(f"s{number}", *some, reason="no"), nothing, True)
            elif name == "replace":
                new = rows(*some, f"r{number}", size=number)
                store.add(new, vectors(*range(len(new))), True)
            elif name == "change" and some:
                by_key = dict(zip(images.keys, images.rows, strict=True))
                moved = [replace(by_key[key], key=f"{key}m", size=number) for key in some]
                store.change(ids.tolist(), moved)
            elif name == "remove" and some:
                store.remove(ids.tolist())
            elif name == "promote" and some:
                store.promote(1, ids, vectors(*(number + at for at in range(len(ids)))))
            elif name == "compact":
                store.compact(0)


def _promoted(store):
    """What the second stage holds, by key of the rows that there are."""
    images, later = store.images(0), store.later(1, 0)
    keys = dict(zip(images.ids.tolist(), images.keys, strict=True))
    held = zip(later.ids.tolist(), later.vectors, strict=True)
    return {keys[at]: vector[0] for at, vector in held if at in keys}


def read_in_blocks(first, lowest=0):
    """Ids and embeddings of all blocks, by id."""
    blocks = list(first.blocks(lowest))
    if not blocks:
        return [], []
    ids = np.concatenate([block.ids for block in blocks])
    vectors = np.concatenate([block.vectors for block in blocks])
    return ids[ids.argsort()].tolist(), vectors[ids.argsort()].tolist()


def test_first_embeddings_are_read_where_they_are(store):
    first = store.first_embeddings()
    assert (first.shape(), first.ids(0).tolist(), read_in_blocks(first)) == ((0, 0), [], ([], []))
    assert first.lists() is None
    ids = put(store, *"abc")
    more = put(store, "d")
    every = store.first(0)
    order = every.ids.argsort()
    assert first.shape() == (4, 4)
    assert read_in_blocks(first) == (every.ids[order].tolist(), every.vectors[order].tolist())
    assert read_in_blocks(first, int(more[0])) == (more.tolist(), every.vectors[order][3:].tolist())
    assert first.ids(int(more[0])).tolist() == more.tolist()
    some = first.of(np.asarray([more[0], ids[1], 10**15]))
    assert sorted(some.ids.tolist()) == [ids[1], more[0]]
    assert some.vectors.dtype == every.vectors.dtype
    known = dict(zip(every.ids.tolist(), every.vectors.tolist(), strict=True))
    assert [known[at] for at in some.ids.tolist()] == some.vectors.tolist()


def test_nearest_are_those_of_the_largest_products_of_all_where_all_lists_are_looked_into(make):
    store = make()
    generator = np.random.default_rng(0)
    given = generator.standard_normal((300, 6)).astype(np.float32)
    given /= np.linalg.norm(given, axis=1, keepdims=True)
    with store.writing():
        store.add(rows(*map(str, range(280))), given[:280], replaces=False)
    first, query = store.first_embeddings(), given[7]

    def check(probes):
        every = store.first(0)
        found = first.nearest(query, 12, probes)
        products = every.vectors.astype(np.float64) @ query.astype(np.float64)
        of_id = dict(zip(every.ids.tolist(), products, strict=True))
        least = np.sort(products)[-12] - 1e-3  # products of halves
        assert len(set(found.ids.tolist())) == 12
        assert all(of_id[at] >= least for at in found.ids.tolist())
        kept = dict(zip(every.ids.tolist(), every.vectors.tolist(), strict=True))
        assert [kept[at] for at in found.ids.tolist()] == found.vectors.tolist()

    check(1)  # without lists
    with store.writing():
        first.make_lists(9)
    lists = first.lists()
    assert (lists.number, lists.rows, lists.outside) == (9, 280, 0)
    check(9)
    with store.writing():
        store.add(rows(*map(str, range(280, 300))), given[280:], replaces=False)
    assert (first.lists().rows, first.lists().outside) == (280, 20)
    check(9)
    assert first.nearest(given[290], 1, 1).ids.tolist() == store.first(0).ids[290:291].tolist()
    with store.writing():
        first.extend_lists()
    assert (first.lists().rows, first.lists().outside) == (300, 0)
    check(9)
    with store.writing():
        first.make_lists(4)
    assert first.lists().number == 4
    check(4)


def test_a_commit_of_another_is_seen_at_once_however_fast_it_comes(tmp_path):
    """Also within the ticks of the file system's clock, and long after anything was written."""
    writer, reader = LanceStore(tmp_path, 1), LanceStore(tmp_path, 1)
    for number in range(20):
        put(writer, str(number))
        assert reader.version() == writer.images(0).version
    long_ago = time.time() - 3600
    os.utime(tmp_path / "images.lance" / "_versions", (long_ago, long_ago))
    settled = reader.version()
    assert reader.version() == settled
    put(writer, "after")
    assert reader.version() > settled
