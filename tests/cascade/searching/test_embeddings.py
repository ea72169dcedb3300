"""A store gives back what was put in, in any order and however it grows."""

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade.searching.embeddings import EmbeddingStore
from tests.lanes import examples

unhurried = settings(deadline=None, max_examples=examples(20, 60))  # a busy machine is no failure


@unhurried
@given(st.permutations(range(12)), st.lists(st.integers(1, 4), min_size=3, max_size=12))
def test_an_embedding_is_found_under_its_position_however_it_came_in(positions, sizes):
    truth = torch.arange(24.0).reshape(12, 2)
    store = EmbeddingStore()
    rest = list(positions)
    for size in sizes:
        batch, rest = rest[:size], rest[size:]
        store.add(batch, truth[batch])
    added = [position for position in positions if position not in rest]
    assert len(store) == len(added)
    assert torch.equal(store.embeddings[store.slots(added)], truth[added])
    assert torch.equal(store.embeddings, truth[added])
    assert store.absent(range(14)).tolist() == [i not in added for i in range(14)]
    assert torch.equal(store.slots(range(-1, 14)) < 0, store.absent(range(-1, 14)))


def test_a_failure_is_told_until_the_position_holds_an_embedding():
    store = EmbeddingStore()
    store.fail(5, "gone")
    assert store.absent([4, 5]).tolist() == [True, True]
    assert (len(store), store.failures) == (0, {5: "gone"})
    store.add([5], torch.zeros(1, 2))
    assert (len(store), store.failures) == (1, {})


def test_a_writer_that_never_came_to_an_end_leaves_nothing_behind():
    """Whatever it wrote behind what is visible: rows, owners, places."""
    store = EmbeddingStore()
    store.add([3], torch.ones(1, 2))
    before = store.held
    before.with_more(np.array([7, 8]), torch.full((2, 2), 9.0))  # and then it was interrupted
    assert (len(store), store.absent([3, 7, 8]).tolist()) == (1, [False, True, True])
    store.add([5, 8, 6], torch.arange(6.0).reshape(3, 2))
    assert store.slots([3, 5, 6, 7, 8]).tolist() == [0, 1, 3, -1, 2]
    assert before.slots([3, 5, 8]).tolist() == [0, -1, -1]
    assert torch.equal(before.rows.embeddings, torch.ones(1, 2))


@unhurried
@given(st.lists(st.integers(0, 40), max_size=30, unique=True), st.integers(1, 4))
def test_a_copy_is_equal_and_its_own(positions, size):
    store = EmbeddingStore()
    for start in range(0, len(positions), size):
        batch = positions[start : start + size]
        store.add(batch, torch.tensor(batch)[:, None].float())
    copies = [copy.deepcopy(store), pickle.loads(pickle.dumps(store))]
    for each in copies:
        assert torch.equal(each.slots(range(42)), store.slots(range(42)))
        assert torch.equal(each.embeddings, store.embeddings)
        each.add([50], torch.full((1, 1), 50.0))
    store.add([60], torch.full((1, 1), 60.0))
    assert [each.embeddings[-1].item() for each in (*copies, store)] == [50, 50, 60]


def test_an_image_is_never_encoded_twice():
    store = EmbeddingStore()
    store.add([3], torch.zeros(1, 2))
    with pytest.raises(ValueError, match="second time"):
        store.add([2, 3], torch.zeros(2, 2))
    with pytest.raises(ValueError, match="second time"):
        store.add([2, 2], torch.zeros(2, 2))
    assert len(store) == 1


def test_embeddings_must_fit_positions_and_each_other():
    store = EmbeddingStore()
    with pytest.raises(ValueError, match="2 images"):
        store.add([0, 1], torch.zeros(3, 2))
    store.add([0], torch.zeros(1, 2))
    with pytest.raises(ValueError, match="dimensions"):
        store.add([1], torch.zeros(1, 3))


def test_a_store_of_halves_stays_one():
    store = EmbeddingStore("float16")
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(9, 3, generator=generator).half()
    store.add([4, 2], truth[:2])
    store.add([1, 7, 0], truth[2:5].float())
    assert store.embeddings.dtype == torch.float16
    assert torch.equal(store.embeddings, truth[:5])
    longest = truth[:5].double().norm(dim=1).max().item()
    assert longest <= store.held.rows.longest <= longest * (1 + 1e-5)
    assert pickle.loads(pickle.dumps(store)).embeddings.dtype == torch.float16
