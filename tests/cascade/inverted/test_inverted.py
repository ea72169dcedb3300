"""Lists on disk find what the exact search finds, but for what they are said to miss."""

import json
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from cascade import Collection, CollectionError
from cascade.collecting.counting import counted
from cascade.collecting.record import Plan
from cascade.inverted.asking import sampled_queries
from cascade.inverted.record import FILE
from cascade.storing.errors import MigratedError
from tests.cascade.known import Known, number_of, numbered, of_rows
from tests.fresh import ROOT, python
from tests.lanes import examples, sweep

IMAGES, K, M = 1500, 10, [30]
FEW, FEWER = 8, 3
"""Queries of each kind that recall is measured on."""
QUERIES = [str(query) for query in range(0, IMAGES, examples(251, 101))]


class Clustered(Known):
    """Directions in clusters, as those of photographs are, so that lists have something to find."""

    def __init__(self, seed, images=IMAGES, dimension=16, **rest):
        super().__init__(seed, images, dimension, **rest)
        generator = torch.Generator().manual_seed(seed)
        centres = torch.randn(30, dimension, generator=generator)
        chosen = torch.randint(0, 30, (images,), generator=generator)
        self.table = torch.nn.functional.normalize(2 * centres[chosen] + self.table * 4, dim=1)


@pytest.fixture(scope="module")
def stages():
    return [Clustered(0), Clustered(1)]


def captioned(numbers):
    return [
        row.__class__(row.key, row.uri, metadata=json.dumps({"captions": [row.uri]}))
        for row in numbered(numbers)
    ]


@pytest.fixture(params=["lance", "memory"])
def collection(request, tmp_path, stages):
    if request.param == "memory":
        made = Collection.in_memory(stages, M, opener=number_of, index="ivf")
    else:
        made = Collection.create(tmp_path / "c", stages, M, opener=number_of, index="ivf")
    with made:
        made.add(numbered(range(IMAGES - 200)))
        yield made


def opened(collection, stages, index, **rest):
    return Collection.open(collection.path, stages, opener=number_of, index=index, **rest)


def exact(collection, k=K, queries=QUERIES, m=M):
    """By brute force: a cascade in memory over the same images."""
    stages = collection.stages
    return of_rows(stages, m, collection.rows()).search_many(queries, k)


def looked_into_whole(collection):
    """The same collection, whose searches look into all of its lists: so nothing is missed."""
    known, file = collection.inverted, collection.cascade.catalogue.contents.rows.measured
    file.write(replace(known, depths=[replace(d, probes=known.lists) for d in known.depths]))
    return collection


def test_without_lists_all_is_read_and_nothing_missed(collection):
    assert collection.needs_lists
    assert collection.inverted is None
    assert collection.search_many(QUERIES, K) == exact(collection)
    assert "exactly" in collection.status().searched


def test_what_lists_find_has_the_scores_and_order_of_the_exact_search(collection):
    collection.build_index(0.9, queries=FEWER)
    assert collection.inverted is not None
    single = [[stage[at : at + 1] for stage in collection.encode_texts(QUERIES)]
              for at in range(len(QUERIES))]  # fmt: skip
    for query in single:
        first = collection.cascade.catalogue.contents.rows
        found = first.ranked(query[0], K, torch.empty(0, dtype=torch.int64))
        every = first.ranked_exactly(query[0], IMAGES, torch.empty(0, dtype=torch.int64))
        scores = dict(zip(every.positions[0].tolist(), every.scores[0].tolist(), strict=True))
        order = [at for at in every.positions[0].tolist() if at in found.positions[0].tolist()]
        assert found.positions[0].tolist() == order
        assert [scores[at] for at in order] == found.scores[0].tolist()


def test_recall_is_what_is_measured_by_brute_force(collection):
    """Each figure in the record, counted anew: queries, results and what the lists hold of them."""
    said = collection.build_index(0.9, queries=FEW)
    assert said == collection.inverted
    assert said.queries == {"images": FEW}
    assert [depth.results for depth in said.depths] == [10, 30, 100, 1000]
    assert all(depth.least >= 0.9 for depth in said.depths)
    assert all(1 <= depth.probes <= said.lists for depth in said.depths)
    rows, none = collection.cascade.catalogue.contents.rows, torch.empty(0, dtype=torch.int64)
    (asked,) = sampled_queries(collection.cascade, collection.rows(), FEW)
    every = rows.at(torch.arange(rows.count)).double()
    for depth in said.depths[:2]:
        found = []
        for query, own in zip(asked.embeddings, asked.own.tolist(), strict=True):
            scores = every @ query.double()
            scores[own] = -torch.inf
            best = set(scores.topk(depth.results).indices.tolist())
            listed = rows.probed(query[None], depth.results + 1, none, depth.probes, said.lists)
            listed = [at for at in listed.positions[0].tolist() if at != own][: depth.results]
            found.append(len(best & set(listed)) / depth.results)
        assert np.mean(found) == pytest.approx(depth.recall["images"], abs=1e-9)


def test_all_lists_find_all(collection):
    collection.build_index(1.0, queries=FEW)
    assert [depth.least for depth in collection.inverted.depths] == [1.0] * 4
    assert looked_into_whole(collection).search_many(QUERIES, K) == exact(collection)


def test_a_higher_target_takes_no_fewer_lists(collection):
    low = collection.build_index(0.8, queries=FEWER)
    high = collection.build_index(0.99, queries=FEWER)
    assert high.target == 0.99 == collection.inverted.target
    assert low.lists == high.lists
    for before, after in zip(low.depths, high.depths, strict=True):
        assert before.probes <= after.probes


@pytest.mark.parametrize("target", [0, -1, 1.01, float("nan")])
def test_a_target_that_is_no_recall_is_refused(collection, target):
    with pytest.raises(ValueError, match=r"recall is in \(0, 1\]"):
        collection.build_index(target)


def test_captions_are_measured_too(tmp_path, stages):
    with Collection.create(tmp_path / "c", stages, M, opener=number_of, index="ivf") as made:
        made.add(captioned(range(300)))
        said = made.build_index(0.9, queries=FEW)
        assert said.queries == {"images": FEW, "captions": FEW}
        assert all(set(depth.recall) == {"images", "captions"} for depth in said.depths)
        assert all(depth.least == min(depth.recall.values()) >= 0.9 for depth in said.depths)


def test_what_is_removed_added_or_replaced_afterwards_is_right_at_once(collection):
    collection.build_index(1.0, queries=FEW)
    collection.remove([f"image {number}" for number in range(0, 600, 2)])
    collection.add(numbered(range(IMAGES - 200, IMAGES)))
    collection.add(numbered(range(1, 100, 2), size=1))  # other content, under the same keys
    assert collection.inverted is not None
    hits = looked_into_whole(collection).search_many(QUERIES, K)
    assert hits == exact(collection)
    assert hits[-1][0].key == f"image {QUERIES[-1]}"  # one of those that are in no list


def test_all_that_are_left_are_found_however_many_are_wanted(collection):
    collection.build_index(0.8, queries=FEWER)
    collection.remove([f"image {number}" for number in range(5, IMAGES)])
    for k in (3, 5, 400):
        hits = collection.search_many(QUERIES, k)
        assert [len(some) for some in hits] == [min(k, 5)] * len(QUERIES)
        assert hits == exact(collection, k)


def test_more_results_than_were_measured_are_exact(collection):
    collection.build_index(0.8, queries=FEWER)
    assert collection.search_many(QUERIES[:3], 1200) == exact(collection, 1200, QUERIES[:3])


def test_compacting_keeps_the_lists(collection):
    collection.build_index(1.0, queries=FEW)
    collection.remove([f"image {number}" for number in range(0, 600, 2)])
    collection.compact(0)
    assert collection.inverted is not None
    assert looked_into_whole(collection).search_many(QUERIES, K) == exact(collection)


def test_lists_are_left_extended_or_made_anew_as_the_collection_grows(collection):
    said = []
    first = collection.build_index(0.9, said.append, FEWER)
    assert any("making" in line for line in said)
    said.clear()
    assert collection.build_index(0.9, said.append, FEWER) == first
    assert said == []
    collection.add(numbered(range(IMAGES - 200, IMAGES)))
    extended = collection.build_index(0.9, said.append, FEWER)
    assert "taking 200 embeddings into lists" in said
    assert (extended.lists, extended.made_of) == (first.lists, first.made_of)
    assert extended.images == IMAGES
    collection.remove([f"image {number}" for number in range(IMAGES - 500)])
    collection.compact(0)
    said.clear()
    fewer = collection.build_index(0.9, said.append, FEWER)
    assert any("making" in line for line in said)
    assert (fewer.lists, fewer.images) == (round(500**0.5), 500)


def test_an_empty_collection_needs_no_lists(tmp_path, stages):
    with Collection.create(tmp_path / "c", stages, opener=number_of, index="ivf") as made:
        assert made.build_index() is None
        assert made.search("1", 3) == []
        made.add(numbered(range(3)))
        assert made.build_index(queries=FEW) is not None
        assert {hit.key for hit in made.search("1", 3)} == {f"image {at}" for at in range(3)}


@pytest.fixture
def stored(tmp_path, stages):
    with Collection.create(tmp_path / "c", stages, M, opener=number_of, index="ivf") as made:
        made.add(numbered(range(IMAGES)))
        made.build_index(0.95, queries=FEWER)
        yield made


def test_whoever_opens_it_searches_the_same_lists(stored, stages):
    hits = stored.search_many(QUERIES, K)
    with opened(stored, stages, "ivf") as again:
        assert again.inverted == stored.inverted
        assert again.search_many(QUERIES, K) == hits
        told = counted(again._store, again._record, again._approach)[0]
        for status in (again.status(), told):
            assert (status.searched, status.inverted) == ("39 lists on disk", stored.inverted)
    with opened(stored, stages, "auto") as fits:  # a megabyte
        assert not fits.needs_lists
        assert fits.search_many(QUERIES, K) == exact(stored)


def test_auto_is_by_lists_where_memory_is_short(stored, stages, monkeypatch):
    monkeypatch.setattr("cascade.inverted.fitting.available_memory", lambda: 2 * IMAGES * 32 - 1)
    with opened(stored, stages, "auto") as short:
        assert short.inverted == stored.inverted
    monkeypatch.setattr("cascade.inverted.fitting.available_memory", lambda: 2 * IMAGES * 32)
    with opened(stored, stages, "auto") as enough:
        assert enough.inverted is None
        assert not enough.needs_lists


def test_a_collection_that_outgrows_memory_while_it_is_open_goes_to_disk(
    tmp_path, stages, monkeypatch
):
    monkeypatch.setattr("cascade.inverted.fitting.available_memory", lambda: 1000 * 32)
    with Collection.create(tmp_path / "c", stages, M, opener=number_of) as made:
        made.add(numbered(range(500)))
        assert not made.needs_lists
        made.add(numbered(range(500, 1400)))
        assert made.needs_lists
        assert made.search_many(QUERIES[:30], K) == exact(made, queries=QUERIES[:30])


def test_an_unknown_way_to_search_is_refused(stored, stages):
    with pytest.raises(ValueError, match="index is one of auto, exact, ivf, not 'hnsw'"):
        opened(stored, stages, "hnsw")


@pytest.mark.parametrize(
    "content", sweep(["", "{", "[]", '{"format": 99}', '{"format": 1}'], ['{"format": 1}'])
)
def test_a_damaged_measurement_is_not_used(stored, stages, content):
    (stored.path / FILE).write_text(content)
    assert stored.inverted is None
    assert stored.search_many(QUERIES, K) == exact(stored)
    assert stored.build_index(0.95, queries=FEWER) is not None
    assert stored.inverted is not None


def test_lists_that_were_not_measured_are_not_used_until_they_are(stored, stages, monkeypatch):
    """As where making them was killed before they were measured."""

    def killed(*_):
        raise KeyboardInterrupt

    stored.remove([f"image {number}" for number in range(0, 1000)])
    stored.compact(0)
    with monkeypatch.context() as patched:
        patched.setattr("cascade.inverted.building._measured", killed)
        with pytest.raises(KeyboardInterrupt):
            stored.build_index(0.95, queries=FEWER)
    assert stored.inverted is None
    assert stored.search_many(QUERIES, K) == exact(stored)
    said = []
    assert stored.build_index(0.95, said.append, FEWER) == stored.inverted
    assert not any("making" in line for line in said)


def test_a_plan_covers_the_exact_search_alone(stored, stages):
    plan = Plan(K, 0.9, 0.95, 100, "queries", IMAGES, IMAGES)
    stored.adopt([30], plan)
    assert stored.plan is None
    with opened(stored, stages, "exact") as again:
        assert again.plan == plan


def test_only_what_needs_all_embeddings_at_once_is_refused_in_one_line(stored):
    with pytest.raises(CollectionError, match='open the collection with index="exact"'):
        _ = stored.cascade.catalogue.contents.rows.embeddings


def test_snapshots_and_background_order_read_from_disk_what_memory_holds(stored, stages):
    stored.search_many(QUERIES, K)
    with opened(stored, stages, "exact") as held:
        one, other = stored.snapshot(), held.snapshot()
        assert np.array_equal(one.ids, other.ids)
        assert torch.equal(one.embeddings, other.embeddings)
        pieces = [piece.embeddings for piece in one.pieces(700)]
        assert torch.equal(torch.cat(pieces), other.embeddings)
    before = stored.cascade.encoded[1]
    assert stored.refine() == IMAGES - before


def test_threads_search_at_once(stored):
    wanted = stored.search_many(QUERIES, K)
    found = {}

    def search(name):
        found[name] = stored.search_many(QUERIES, K)

    threads = [threading.Thread(target=search, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[name] == wanted for name in range(4))


def test_who_searches_on_disk_is_told_of_a_migration(stored, stages):
    from cascade.collecting.restaging import Restaging
    from cascade.stages.mapped import Map

    the_map = Map(torch.eye(16), torch.zeros(16))
    nothing = np.empty(0, np.int64), np.empty((0, 16), np.float32)
    with opened(stored, stages, "ivf") as writer:
        writer.restage(Restaging(the_map, Clustered(7), [20], *nothing))
    stored._refreshed = 0.0  # as after a second
    with pytest.raises(MigratedError, match="open it again"):
        stored.search_many(QUERIES, K)


KILLED = """
import os, signal, sys, threading
from cascade import Collection
from cascade.inverted import building
from cascade.inverted.record import InvertedFile
from cascade.storing.first import StoredFirst
from tests.cascade.inverted.test_inverted import M, Clustered, number_of

def die(*_): os.kill(os.getpid(), signal.SIGKILL)
def dying(before, do, after):
    def replaced(*given):
        before()
        do(*given)
        after()
    return replaced
def soon(): threading.Timer(0.01, die).start()
def nothing(): pass
place, step = sys.argv[1:]
make, write = StoredFirst.make_lists, InvertedFile.write
if step == "in the midst of lists": StoredFirst.make_lists = dying(soon, make, die)
if step == "after lists": StoredFirst.make_lists = dying(nothing, make, die)
if step == "before measuring": building._measured = die
if step == "after lists were noted": InvertedFile.write = dying(nothing, write, die)
stages = [Clustered(0), Clustered(1)]
with Collection.open(place, stages, opener=number_of, index="ivf") as collection:
    collection.build_index(0.9, queries=3)
"""


@pytest.mark.parametrize(
    "step",
    sweep(
        ["in the midst of lists", "after lists", "after lists were noted", "before measuring"],
        ["in the midst of lists"],
    ),
)
def test_killed_at_any_step_it_searches_exactly_and_goes_on(tmp_path, stages, step):
    with Collection.create(tmp_path / "c", stages, M, opener=number_of, index="ivf") as made:
        made.add(numbered(range(IMAGES)))
        assert python("-c", KILLED, made.path, step, cwd=ROOT, check=False).returncode == -9
        assert made.inverted is None
        assert made.search_many(QUERIES, K) == exact(made)
        assert made.build_index(0.9, queries=3) == made.inverted
