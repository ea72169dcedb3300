"""A store gives back what was put in, in any order and however it grows."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade.store import EmbeddingStore

unhurried = settings(deadline=None, max_examples=60)  # a busy machine is no failure


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


def test_an_unreadable_position_is_neither_absent_nor_readable():
    store = EmbeddingStore()
    store.add_unreadable(5)
    assert store.absent([4, 5]).tolist() == [True, False]
    assert (store.slots([4, 5]) < 0).all()
    assert len(store) == 0


def test_an_image_is_never_encoded_twice():
    store = EmbeddingStore()
    store.add([3], torch.zeros(1, 2))
    with pytest.raises(ValueError, match="second time"):
        store.add([2, 3], torch.zeros(2, 2))
    assert len(store) == 1


def test_embeddings_must_fit_positions_and_each_other():
    store = EmbeddingStore()
    with pytest.raises(ValueError, match="2 images"):
        store.add([0, 1], torch.zeros(3, 2))
    store.add([0], torch.zeros(1, 2))
    with pytest.raises(ValueError, match="dimensions"):
        store.add([1], torch.zeros(1, 3))
