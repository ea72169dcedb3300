"""A collection gives the hits of a cascade over its images, in this process and in the next."""

import os
import random
import signal
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cascade import (
    Added,
    Budget,
    Collection,
    CollectionError,
    ImageRow,
    ResumedStage,
    Stage,
    UnreadableImage,
)
from cascade.collecting.counting import counted
from cascade.collecting.record import FILE, FORMAT
from tests.cascade.conftest import exit_of
from tests.cascade.known import Known, number_of, numbered, of_rows
from tests.fresh import python
from tests.lanes import examples

M = [12]
QUERIES = [str(query) for query in range(0, 60, 4)]
KINDS = ["memory", "lance"]


@pytest.fixture
def stages():
    return [Known(0), Known(1)]


@pytest.fixture(params=KINDS)
def make(request, tmp_path):
    return lambda stages, m=None, **rest: made(request.param, tmp_path, stages, m, **rest)


def made(kind, directory, stages, m=None, **rest):
    if kind == "memory":
        return Collection.in_memory(stages, m, opener=number_of, **rest)
    return Collection.create(directory / "collection", stages, m, opener=number_of, **rest)


def reopened(tmp_path, stages, **rest):
    return Collection.open(tmp_path / "collection", stages, opener=number_of, **rest)


def same_hits(collection, stages, m=M, precision="float16"):
    expected = of_rows(stages, m, collection.rows(), precision)
    assert collection.search_many(QUERIES, 9) == expected.search_many(QUERIES, 9)


@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_hits_are_those_of_a_cascade_over_the_rounded_embeddings(make, stages, precision):
    with make(stages, M, precision=precision) as collection:
        assert collection.search("3", 5) == []
        assert collection.add(numbered(range(50))) == Added(added=50)
        assert len(collection) == 50
        assert "image 7" in collection
        assert "image 70" not in collection
        same_hits(collection, stages, precision=precision)
        assert collection.search("3", 5) == collection.search_many(["3"], 5)[0]
        queries = collection.encode_texts(["3", "8"])
        assert collection.search_embeddings(queries, 5) == collection.search_many(["3", "8"], 5)


def test_a_query_by_embeddings_needs_one_tensor_a_stage(make, stages):
    with make(stages, M) as collection, pytest.raises(ValueError, match="2 stages"):
        collection.search_embeddings([torch.zeros(1, 16)], 5)


def test_a_collection_outlives_its_process(tmp_path, stages):
    with made("lance", tmp_path, stages, M) as collection:
        collection.add(numbered(range(40)))
        before = collection.search_many(QUERIES, 9)
        rows, status = list(collection.rows()), collection.status()
    last = Known(1)
    with reopened(tmp_path, [Known(0), last]) as again:
        assert again.search_many(QUERIES, 9) == before
        assert list(again.rows()) == rows
        assert last.asked == []  # what was promoted is never encoded again
        after = again.status()
        assert counted(again._store, again._record, again._approach) == (after, {})
    assert after.encoded == (40, status.encoded[1] + status.waiting)
    assert (after.images, after.m, after.stages) == (40, (12,), ("known 0", "known 1"))
    assert after.nbytes > 0


def test_what_a_view_encoded_and_the_next_view_again_is_kept_once(tmp_path, stages):
    """A view is replaced while what its later stage encoded waits to be stored."""
    with made("lance", tmp_path, stages, M) as collection:
        collection.add(numbered(range(100)))
        collection.search_many(QUERIES, 9)
        waiting = len(collection._promotions)
        collection._view = collection._new_view()  # as where many images were removed
        collection.search_many(QUERIES, 9)
        assert len(collection._promotions) == 2 * waiting > 0
    with reopened(tmp_path, stages) as again:
        same_hits(again, stages)
        assert again.status().encoded == (100, waiting)
        assert len(again._store.later(1, 0).ids) == waiting


def test_a_store_in_which_an_embedding_is_twice_is_read(tmp_path, stages):
    """An earlier version wrote such."""
    with made("lance", tmp_path, stages, M) as collection:
        collection.add(numbered(range(100)))
        collection.search_many(QUERIES, 9)
        collection.flush()
        encoded = collection.status().encoded
        later = collection._store.later(1, 0)
        with collection._store.writing():
            collection._store._append(1, later.ids[:3], later.vectors[:3])
    with reopened(tmp_path, stages) as again:
        same_hits(again, stages)
        assert again.status().encoded == encoded


def test_adding_again_goes_on_where_it_was(make):
    first = Known(0)
    rows = numbered(range(30), size=1, modified=2)
    with make([first]) as collection:
        assert collection.add(rows[:20]) == Added(added=20)
        assert collection.add(rows) == Added(added=10, unchanged=20)
        assert first.asked == list(range(30))


def test_what_was_encoded_before_an_error_is_added(make):
    class Fails(Known):
        def encode_images(self, images):
            if len(self.asked) >= 8:
                raise RuntimeError("out of memory")
            return super().encode_images(images)

    failing = Fails(0)
    with make([failing], batch_size=4) as collection:
        with pytest.raises(RuntimeError, match="out of memory"):
            collection.add(numbered(range(20)))
        assert len(collection) == 8


def test_changed_images_replace_the_old_ones_in_all_stages(make, stages):
    with make(stages, M) as collection:
        collection.add(numbered(range(30), size=1, modified=1))
        collection.search_many(QUERIES, 9)
        changed = [ImageRow(f"image {at}", str(at + 100), size=2, modified=2) for at in range(5)]
        assert collection.add(changed) == Added(replaced=5)
        assert len(collection) == 30
        assert collection.search("103", 1)[0].key == "image 3"
        assert collection.row("image 3") == changed[3]
        same_hits(collection, stages)


def test_of_two_rows_of_one_key_the_later_one_counts(make, stages):
    with make(stages, M) as collection:
        assert (
            collection.add([ImageRow("a", "1"), ImageRow("b", "2"), ImageRow("a", "3")]).added == 2
        )
        assert collection.row("a").uri == "3"


def test_the_same_bytes_elsewhere_in_time_are_not_encoded_again(make):
    first = Known(0)
    with make([first]) as collection:
        collection.add([ImageRow("a", "1", size=1, modified=1, digest="d", metadata="{}")])
        assert collection.add([ImageRow("a", "1", size=1, modified=9, digest="d")]).unchanged == 1
        assert collection.row("a") == ImageRow("a", "1", 1, 9, "d", None, "{}")
        assert first.asked == [1]
        assert collection.add([ImageRow("a", "2", size=1, modified=9, digest="e")]).replaced == 1
        assert first.asked == [1, 2]


def test_a_moved_image_keeps_its_embeddings(make, stages):
    with make(stages, M) as collection:
        collection.add(numbered(range(20)))
        before = collection.search_many(QUERIES, 9)
        asked = [list(stage.asked) for stage in stages]
        collection.update("image 4", ImageRow("moved", "4", size=3))
        assert "image 4" not in collection
        assert collection.row("moved") == ImageRow("moved", "4", size=3)
        after = collection.search_many(QUERIES, 9)
        assert [[hit.key.replace("moved", "image 4") for hit in hits] for hits in after] == [
            [hit.key for hit in hits] for hits in before
        ]
        assert [stage.asked for stage in stages] == asked
        with pytest.raises(ValueError, match="in use"):
            collection.update("image 5", ImageRow("moved", "5"))
        with pytest.raises(ValueError, match="no image"):
            collection.update("image 4", ImageRow("x", "5"))
        assert collection.add([ImageRow("image 4", "44")]).added == 1  # the name is free
        same_hits(collection, stages)


def test_removed_images_are_found_no_longer(make, stages):
    with make(stages, M) as collection:
        collection.add(numbered(range(30)))
        collection.search_many(QUERIES, 9)
        assert collection.remove(["image 3", "image 8", "nothing"]) == 2
        assert len(collection) == 28
        assert {"image 3", "image 8"}.isdisjoint(row.key for row in collection.rows())
        same_hits(collection, stages)
        collection.remove(row.key for row in list(collection.rows()))
        assert (len(collection), collection.search("3", 5)) == (0, [])


def test_skipped_images_are_rows_with_a_reason(make):
    first = Known(0, unreadable=[3, 5])
    with make([first], batch_size=4) as collection:
        rows = [*numbered(range(8)), ImageRow("no file", "9", reason="too large")]
        assert collection.add(rows) == Added(added=6, skipped=3)
        reasons = {"image 3": "it is broken", "image 5": "it is broken", "no file": "too large"}
        assert collection.skipped == reasons
        assert collection.status().skipped == {"it is broken": 2, "too large": 1}
        assert collection.row("image 3").reason == "it is broken"
        assert [row.key for row in collection.rows()][-3:] == list(reasons)
        first.unreadable = set()
        assert collection.add(numbered(range(8), size=1, modified=1)) == Added(added=2, replaced=6)
        assert list(collection.skipped) == ["no file"]
        assert collection.remove(["no file"]) == 1
        assert collection.skipped == {}


def test_an_embedding_that_halves_cannot_hold_is_a_reason_to_skip(make):
    first = Known(0)
    first.table[2] *= 1e6
    with make([first]) as collection:
        assert collection.add(numbered(range(4))) == Added(added=3, skipped=1)
        assert "finite" in collection.skipped["image 2"]


def test_progress_tells_of_what_is_visible(make, monkeypatch):
    monkeypatch.setattr("cascade.collecting.adding.SECONDS", 0.0)
    told = []
    with make([Known(0)], batch_size=4) as collection:
        collection.add(numbered(range(10)), lambda done: told.append((done.added, len(collection))))
    assert told == [(4, 4), (4, 8), (2, 10)]


def test_interrupts_leave_a_collection_whole(tmp_path, stages, monkeypatch):
    """As by Ctrl-C, at random moments: each leaves batches added as a whole, or not at all."""
    monkeypatch.setattr("cascade.collecting.adding.SECONDS", 0.0)

    def interrupt(*_):
        raise KeyboardInterrupt

    rng, interrupts = random.Random(0), 0
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with made("lance", tmp_path, stages, M, batch_size=4) as collection:
            for time_of_it in range(examples(12, 400)):
                numbers = [rng.randrange(60) for _ in range(24)]
                rows = numbered(dict.fromkeys(numbers), size=time_of_it // 2, modified=1)
                try:
                    signal.setitimer(signal.ITIMER_REAL, rng.uniform(0.001, 0.15))
                    collection.add(rows)
                    collection.search_many(QUERIES, 9)
                    collection.remove([rows[0].key])
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except KeyboardInterrupt:
                    interrupts += 1
                same_hits(collection, stages)
                with reopened(tmp_path, stages) as other:
                    assert list(other.rows()) == list(collection.rows())
                    assert other.search_many(QUERIES, 9) == collection.search_many(QUERIES, 9)
                first = collection._store.first(0).ids.tolist()
                assert len(set(first)) == len(first)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupts


def test_readers_see_what_another_process_adds_at_its_commit(tmp_path, stages):
    with (
        made("lance", tmp_path, stages, M) as writer,
        reopened(tmp_path, [Known(0), Known(1)]) as reader,
    ):
        for start in range(0, 40, 10):
            writer.add(numbered(range(start, start + 10)))
            assert len(reader) == start + 10
            same_hits(reader, stages)
        writer.remove(["image 2"])
        writer.update("image 3", ImageRow("moved", "3"))
        writer.add([ImageRow("image 5", "105")])
        same_hits(reader, stages)
        assert reader.row("moved").uri == "3"
        assert list(reader.rows()) == list(writer.rows())


def test_what_another_process_promoted_is_not_encoded_again(tmp_path, stages, monkeypatch):
    monkeypatch.setattr("cascade.collection._LATER_SECONDS", 0.0)
    last = Known(1)
    with (
        made("lance", tmp_path, stages, M) as one,
        reopened(tmp_path, [Known(0), last]) as other,
    ):
        one.add(numbered(range(40)))
        found = one.search_many(QUERIES, 9)
        one.flush()
        assert other.search_many(QUERIES, 9) == found
        assert last.asked == []


def test_promotions_are_stored_within_seconds_without_being_asked(tmp_path, stages, monkeypatch):
    monkeypatch.setattr("cascade.collecting.promotions.SECONDS", 0.05)
    with made("lance", tmp_path, stages, M) as collection:
        collection.add(numbered(range(20)))
        collection.search("3", 5)
        deadline = time.monotonic() + 60
        while collection.status().waiting:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert collection.status().encoded == (20, 12)
        with reopened(tmp_path, stages) as other:
            assert other.status().encoded == (20, 12)


def test_many_hidden_images_are_left_out_of_a_new_view(make, stages, monkeypatch):
    monkeypatch.setattr("cascade.collecting.view._HIDDEN_AT_LEAST", 3)
    with make(stages, M) as collection:
        collection.add(numbered(range(30)))
        collection.search_many(QUERIES, 9)
        collection.remove(f"image {at}" for at in range(10))
        same_hits(collection, stages)
        assert collection._view.cascade.catalogue.contents.gone == frozenset()
        assert collection.status().images == 20


def test_compaction_changes_nothing_that_is_seen(make, stages):
    with make(stages, M) as collection:
        collection.add(numbered(range(30)))
        before = collection.search_many(QUERIES, 9)
        collection.remove(["image 1"])
        rows = list(collection.rows())
        collection.compact(keep_seconds=0)
        assert list(collection.rows()) == rows
        same_hits(collection, stages)
        collection.add(numbered([1]))
        assert {hit.key for hits in before for hit in hits} <= {r.key for r in collection.rows()}


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "remove", "move", "search", "compact", "open"]),
        st.integers(0, 2**20),
    ),
    max_size=8,
)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=examples(6, 100))
@given(operations=OPERATIONS)
def test_hits_never_depend_on_what_happened_in_between(kind, operations, tmp_path_factory):
    stages, directory = [Known(0), Known(1), Known(2)], tmp_path_factory.mktemp("c")
    m = [9, 4]
    collection = made(kind, directory, stages, m)
    for name, seed in operations:
        numbers = [(seed * 31 + at * at) % 60 for at in range(seed % 9)]
        if name == "add":
            collection.add(numbered(dict.fromkeys(numbers), size=seed % 3, modified=0))
        elif name == "remove":
            collection.remove(f"image {number}" for number in numbers)
        elif name == "move" and numbers and collection.row(f"image {numbers[0]}"):
            known = collection.row(f"image {numbers[0]}")
            collection.update(known.key, ImageRow(f"moved {seed} {known.key}", known.uri))
        elif name == "search":
            collection.search_many(QUERIES[: seed % 5], 3)
        elif name == "compact":
            collection.compact(keep_seconds=0)
        elif name == "open" and kind == "lance":
            collection.close()
            collection = reopened(directory, stages)
        same_hits(collection, stages, m)
    collection.close()


def test_refining_encodes_the_rest_within_its_budget(make, stages):
    with make(stages, M, batch_size=4) as collection:
        collection.add(numbered(range(40)))
        before = collection.search_many(QUERIES[:2], 9)
        encoded = collection.status().encoded[1] + collection.status().waiting
        told = []
        assert collection.refine(Budget(images=6), progress=told.append) == 6
        assert (sum(told), collection.status().encoded[1]) == (6, encoded + 6)
        assert collection.refine(Budget(seconds=0)) == 0
        assert collection.refine(Budget(share=1 / 2)) == max(0, 20 - encoded - 6)
        stop = threading.Event()
        stop.set()
        assert collection.refine(stop=stop) == 0
        assert collection.refine() == 40 - collection_share(encoded)
        assert collection.status().encoded == (40, 40)
        assert collection.search_many(QUERIES[:2], 9) == before
        assert sorted(stages[1].asked) == list(range(40))
        assert collection.refine() == 0


def collection_share(encoded):
    """How many the last stage had encoded before the rest."""
    return max(20, encoded + 6)


def test_refining_tries_an_image_once_and_ends(make, stages):
    stages[1].unreadable = {3}
    with make(stages, M, batch_size=4) as collection:
        collection.add(numbered(range(10)))
        assert collection.refine() == 9
        assert collection.skipped == {"image 3": "it is broken"}


def test_refining_takes_what_is_near_to_promoted_images_first(make):
    first = Known(0)
    first.table[:4] = torch.tensor([1.0, 0.0] + [0.0] * 14)
    first.table[4:40] = torch.tensor([0.0, 1.0] + [0.0] * 14)
    first.table[30] = torch.tensor([0.9, 0.1] + [0.0] * 14)
    last = Known(1)
    with make([first, last], [2], batch_size=2) as collection:
        collection.add(numbered(range(40)))
        collection.search("0", 1)
        assert sorted(last.asked) == [0, 1]
        collection.refine(Budget(images=4))
        assert last.asked[2:5] == [2, 3, 30]


def agreement(found, truth):
    return sum(
        len({hit.key for hit in a} & {hit.key for hit in b})
        for a, b in zip(found, truth, strict=True)
    )


def test_refined_results_only_get_better_until_they_are_the_last_stage_alone(make, stages):
    with make(stages, [6], batch_size=4) as collection:
        collection.add(numbered(range(60)))
        collection.remove(["image 8", "image 20"])
        truth = of_rows([stages[1]], [], collection.rows()).search_many(QUERIES, 5)
        plain = collection.search_many(QUERIES, 5)
        agreed = [agreement(plain, truth)]
        while True:
            found = collection.search_many(QUERIES, 5, refined=True)
            assert all(len({hit.key for hit in hits}) == 5 for hits in found)
            agreed.append(agreement(found, truth))
            if not collection.refine(Budget(images=5)):
                break
        assert agreed == sorted(agreed)
        assert agreed[0] < agreed[-1] == 5 * len(QUERIES)
        assert [[(hit.key, hit.score) for hit in hits] for hits in found] == [
            [(hit.key, hit.score) for hit in hits] for hits in truth
        ]
        assert collection.search_many(QUERIES, 5) == plain
        everything = collection.search("4", 100, refined=True)
        assert len({hit.key for hit in everything}) == len(everything) == 58


def test_one_stage_has_nothing_to_refine(make):
    with make([Known(0)]) as collection, pytest.raises(ValueError, match="one stage"):
        collection.refine()


@pytest.mark.parametrize("limits", [{"images": -1}, {"seconds": -1.0}, {"share": 1.5}])
def test_a_budget_is_in_range(limits):
    with pytest.raises(ValueError, match=r"budget|share"):
        Budget(**limits)


def test_a_collection_is_made_once(tmp_path, stages):
    made("lance", tmp_path, stages, M).close()
    with pytest.raises(CollectionError, match=r"there already: open it with Collection\.open"):
        made("lance", tmp_path, stages, M)
    assert os.listdir(tmp_path) == ["collection"]


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [({"m": [3, 2]}, "2 stages"), ({"precision": "int4"}, "float16"), ({"batch_size": 0}, "batch")],
)
def test_a_collection_that_cannot_be_leaves_nothing_behind(tmp_path, stages, settings, complaint):
    with pytest.raises(ValueError, match=complaint):
        made("lance", tmp_path, stages, **{"m": M, **settings})
    assert os.listdir(tmp_path) == []


def test_what_is_no_collection_is_refused(tmp_path, stages):
    with pytest.raises(CollectionError, match="isn't there"):
        reopened(tmp_path, stages)
    (tmp_path / "collection").mkdir()
    with pytest.raises(CollectionError, match="is not a collection"):
        reopened(tmp_path, stages)
    (tmp_path / "collection" / FILE).write_text("{")
    with pytest.raises(CollectionError, match="damaged"):
        reopened(tmp_path, stages)
    (tmp_path / "file").write_text("")
    with pytest.raises(CollectionError, match="is not a collection"):
        Collection.open(tmp_path / "file", stages)


def test_a_newer_format_is_refused(tmp_path, stages):
    made("lance", tmp_path, stages, M).close()
    record = tmp_path / "collection" / FILE
    known = f'"format": {FORMAT}'
    assert known in record.read_text()
    record.write_text(record.read_text().replace(known, f'"format": {FORMAT + 1}'))
    said = f"has format {FORMAT + 1}, this version reads up to {FORMAT}"
    with pytest.raises(CollectionError, match=said):
        reopened(tmp_path, stages)


def test_other_stages_are_refused_by_both_names(tmp_path, stages):
    made("lance", tmp_path, stages, M).close()
    with pytest.raises(CollectionError, match=r"stage 1 of .* was known 1, not known 7"):
        reopened(tmp_path, [Known(0), Known(7)])
    with pytest.raises(CollectionError, match="made with 2 stages, not 1"):
        reopened(tmp_path, [Known(0)])
    with pytest.raises(CollectionError, match="pass stages="):
        reopened(tmp_path, None)


def test_another_m_may_be_asked_for(tmp_path, stages):
    with made("lance", tmp_path, stages, M) as collection:
        collection.add(numbered(range(30)))
    with reopened(tmp_path, stages, m=[20]) as again:
        assert again.m == (20,)
        same_hits(again, stages, [20])


def test_a_closed_collection_says_so(make, stages):
    collection = make(stages, M)
    collection.close()
    collection.close()
    with pytest.raises(CollectionError, match="closed"):
        collection.search("3", 5)


def test_what_is_no_image_is_refused(make):
    with make([Known(0)]) as collection:
        with pytest.raises(TypeError, match="ImageRow"):
            collection.add([3])
        with pytest.raises(CollectionError, match="UTF-8"):
            collection.add([ImageRow("\udcff", "1")])


READ_ONLY = """
import os, sys
from tests.cascade.known import Known, number_of
from cascade import Collection, CollectionError
import cascade.storing.lance  # what it needs may lie where only root can read
os.setuid(65534)
with Collection.open(sys.argv[1], [Known(0), Known(1)], opener=number_of) as collection:
    print([hit.key for hit in collection.search("3", 2)])
    for change in (lambda: collection.add(["x"]), lambda: collection.remove(["image 3"]),
                   collection.refine, collection.compact):
        try:
            change()
        except CollectionError as error:
            print(error)
"""


@pytest.fixture
def in_the_open():
    """A directory that everybody may look into, as those of pytest may not be."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        yield Path(directory)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_directory_that_cannot_be_written_is_searched_and_not_changed(in_the_open, stages):
    with made("lance", in_the_open, stages, M) as collection:
        collection.add(numbered(range(20)))
        found = [hit.key for hit in collection.search("3", 2)]
    program = READ_ONLY.replace("sys.argv[1]", repr(str(in_the_open / "collection")))
    first, *others = python("-c", program).stdout.splitlines()
    assert first == str(found)
    assert len(others) == 4
    assert all("can't be written" in line for line in others)
    (in_the_open / "collection").chmod(0o700)
    assert "can't be read: Permission denied" in python("-c", program, check=False).stderr


FULL = """
import resource, signal
from tests.cascade.known import Known, number_of, numbered
from cascade import Collection, CollectionError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with Collection.open(PATH, [Known(0), Known(1)], opener=number_of) as collection:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    try:
        collection.add(numbered(range(100, 300)))
    except CollectionError as error:
        print(error)
    print(len(collection))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    collection.add(numbered(range(100, 300)))
    print(len(collection))
"""


def test_what_was_done_before_the_disk_was_full_lasts(tmp_path, stages):
    """A limit on the size of files stands for the disk: the system refuses in the same way."""
    with made("lance", tmp_path, stages, M) as collection:
        collection.add(numbered(range(20)))
    ended = python("-c", FULL.replace("PATH", repr(str(tmp_path / "collection"))))
    error, before, after = ended.stdout.splitlines()
    assert "its disk is full" in error
    assert (before, after) == ("20", "220")
    with reopened(tmp_path, stages) as collection:
        same_hits(collection, stages)


def pictures(directory, number=6):
    generator = torch.Generator().manual_seed(1)
    files = []
    for at in range(number):
        pixels = torch.randint(0, 256, (16, 16, 3), generator=generator, dtype=torch.uint8)
        files.append(directory / f"{at}.png")
        Image.fromarray(pixels.numpy()).save(files[-1])
    return files


def test_checkpoints_are_found_again_and_loaded_when_they_are_needed(clip_directory, tmp_path):
    files = pictures(tmp_path)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"oops")
    stage = Stage.load(clip_directory)
    with Collection.create(tmp_path / "c", [stage, stage], [3]) as collection:
        assert collection.add([*files, broken, tmp_path / "nowhere.png"]) == Added(6, skipped=2)
        assert "cannot read" in collection.skipped[str(broken)]
        found = collection.search("a red disc", 4)
        assert collection.add(map(str, files)) == Added(unchanged=6)
    with Collection.open(tmp_path / "c") as again:
        assert again._record.stages[0].checkpoint == str(clip_directory.resolve())
        assert again.stages[0]._loading._loaded == {}
        assert len(again) == 6
        assert again.search("a red disc", 4) == found
        files[0].write_bytes(files[1].read_bytes())  # changed between the stages
        again.refine()
        status = again.status()
        assert status.encoded[1] in (5, 6)
        if status.encoded[1] == 5:
            assert "has changed since it was added" in again.skipped[str(files[0])]


def test_a_checkpoint_that_has_changed_is_refused(clip_directory, tmp_path):
    import shutil

    copy = tmp_path / "model"
    shutil.copytree(clip_directory, copy)
    stage = Stage.load(copy)
    with Collection.create(tmp_path / "c", [stage]) as collection:
        collection.add(pictures(tmp_path))
    settings = copy / "preprocessor_config.json"
    if not settings.exists():
        settings = copy / "processor_config.json"
    settings.write_text(
        settings.read_text().replace('"do_normalize": true', '"do_normalize": false')
    )
    with (
        Collection.open(tmp_path / "c") as again,
        pytest.raises(CollectionError, match="which is now"),
    ):
        again.search("a red disc", 1)
    shutil.rmtree(copy)
    with (
        Collection.open(tmp_path / "c") as again,
        pytest.raises(CollectionError, match=r"[Pp]ass stages="),
    ):
        again.search("a red disc", 1)


def test_a_stage_that_resumes_goes_on_from_stored_states_or_from_the_file(
    full, pictures, tmp_path, monkeypatch
):
    monkeypatch.setattr("cascade.collecting.adding.STATE_BYTES", 5000)  # a few at once
    first = exit_of(full)
    stages = [first, ResumedStage(full, first)]
    images = [(ImageRow(f"{at}", f"{at}"), picture) for at, picture in enumerate(pictures)]

    def opener(row):
        return pictures[int(row.uri)]

    def gone(row):
        raise UnreadableImage(f"{row.key} was opened again")

    with Collection.in_memory(stages, [3], opener=opener) as undisturbed:
        undisturbed.add(images)
        found = undisturbed.search("a red disc", 4)
    with Collection.create(tmp_path / "c", stages, [3], opener=gone) as collection:
        collection.add(images)
        tokens = stages[1].encode_first(pictures[:1])[1]
        status = collection.status()
        assert (status.states, status.state_bytes) == (5, 16 + tokens.bytes_per_image)
        assert collection.cascade.state_bytes == 0  # in memory
    with Collection.open(tmp_path / "c", stages, opener=gone) as again:
        assert again.search("a red disc", 4) == found
        again.flush()
        assert again.status().encoded == (5, 3)
        again.compact(keep_seconds=0)
        assert again.status().states == 2  # the others need them no longer
        again.remove([found[-1].key])  # which only the first stage has ranked
        again.compact(keep_seconds=0)
        assert again.status().states == 1
        [left] = set("01234") - {hit.key for hit in found}
        again._store.release_states(np.asarray([again.id_of(left)]))
        assert again.refine() == 0
        assert again.skipped == {left: f"cannot read an image: {left} was opened again"}
    with Collection.open(tmp_path / "c", stages, opener=opener) as again:
        assert again.refine() == 1
        assert again.search("a red disc", 3) == found[:3]
