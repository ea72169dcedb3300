"""States are what was computed, smaller; merging loses no patch; a store forgets what was used."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cascade.searching.states import States, StateStore, resumed_from, states_of
from pruning_mechanism import TowerError


def tokens(images=3, count=10, seed=0):
    return torch.randn(images, count, 8, generator=torch.Generator().manual_seed(seed))


@given(st.integers(2, 20), st.integers(0, 2**31), st.data())
def test_merging_keeps_every_patch_the_mean_and_the_class_token(count, seed, data):
    merged = data.draw(st.integers(0, count - 2))
    hidden = tokens(count=count, seed=seed)
    sizes = data.draw(st.sampled_from([None, torch.full((3, count), 3.0)]))
    before = torch.ones(3, count) if sizes is None else sizes
    found = states_of(hidden, sizes, merged, torch.float32)
    assert found.hidden.shape == (3, count - merged, 8)
    torch.testing.assert_close(found.hidden[:, 0], hidden[:, 0])
    after = torch.ones(3, count) if found.sizes is None else found.sizes
    assert torch.equal(after[:, 1:].sum(1), before[:, 1:].sum(1).to(after.dtype))
    assert (after[:, 0] == before[:, 0]).all()
    torch.testing.assert_close(
        (found.hidden * after[..., None]).sum(1), (hidden * before[..., None]).sum(1),
        atol=1e-4, rtol=1e-4,
    )  # fmt: skip


def test_the_most_alike_tokens_are_merged():
    hidden = tokens(images=1, count=7)
    hidden[:, 4] = 2 * hidden[:, 3]  # of the same direction
    found = states_of(hidden, None, 1, torch.float32)
    assert found.sizes.tolist() == [[1, 1, 1, 2, 1, 1]]
    torch.testing.assert_close(found.hidden[:, 3], 1.5 * hidden[:, 3])


def test_nothing_merged_is_no_sizes_and_half_the_bytes():
    whole, half = (states_of(tokens(), None, 0, each) for each in (torch.float32, torch.float16))
    assert torch.equal(whole.hidden, tokens())
    assert half.hidden.dtype == torch.float16
    assert whole.sizes is half.sizes is None
    assert (whole.bytes_per_image, half.bytes_per_image) == (10 * 8 * 4, 10 * 8 * 2)
    merged = states_of(tokens(), None, 4)
    assert merged.bytes_per_image == 6 * (8 * 2 + 2)


@pytest.mark.parametrize("merged", [-1, 9])
def test_one_patch_must_stay(merged):
    with pytest.raises(ValueError, match="can't be merged: one must stay"):
        states_of(tokens(), None, merged)


def test_what_half_precision_cannot_hold_is_refused_with_the_way_out():
    large = tokens() + 1e5
    with pytest.raises(TowerError, match=r"not finite in float16: keep them in torch\.bfloat16"):
        states_of(large, None)
    assert states_of(large, None, dtype=torch.bfloat16).hidden.isfinite().all()


def test_sizes_must_be_those_of_the_tokens():
    with pytest.raises(ValueError, match="sizes"):
        States(tokens(), torch.ones(3, 9))


def test_images_are_taken_apart_and_joined_again():
    states = states_of(tokens(), None, 3)
    apart = states.apart()
    assert [len(each) for each in apart] == [1, 1, 1]
    for each in apart:  # the others' memory can be freed
        for tensor in (each.hidden, each.sizes):
            assert tensor.untyped_storage().nbytes() == tensor.nbytes
    joined = States.joined(apart)
    assert torch.equal(joined.hidden, states.hidden)
    assert torch.equal(joined.sizes, states.sizes)


def test_a_store_gives_states_by_position_until_they_are_forgotten():
    store = StateStore()
    apart = states_of(tokens(), None).apart()
    for position, states in zip((7, 2, 5), apart, strict=True):
        store.add(position, states)
    assert torch.equal(store.at([5, 7]).hidden, torch.cat([apart[2].hidden, apart[0].hidden]))
    assert (len(store), store.nbytes) == (3, 3 * apart[0].bytes_per_image)
    store.forget([7, 5])
    assert (len(store), store.nbytes) == (1, apart[0].bytes_per_image)
    with pytest.raises(KeyError):
        store.at([7])


def one_image(bytes_=8):
    return States(torch.zeros(1, 1, bytes_, dtype=torch.uint8))


@given(
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from([4, 8]), st.booleans()), max_size=30),
    st.integers(0, 60),
)
def test_states_never_take_more_than_the_limit_and_what_is_needed_stays(added, limit):
    store, needed = StateStore(limit), set()
    for position, size, is_needed in added:
        kept = store.add(position, one_image(size), is_needed)
        needed.discard(position)
        if kept and is_needed:
            needed.add(position)
        assert kept == (position in store.found([position]))
        assert store.nbytes <= limit
        assert set(store.found(range(10))) >= needed


def test_the_oldest_states_go_first():
    store = StateStore(limit=3 * 8)
    for position in (5, 1, 7, 2):
        assert store.add(position, one_image())
    assert (list(store.found([1, 2, 5, 7])), store.dropped) == ([1, 2, 7], 1)
    store.forget([1, 5])
    assert store.add(5, one_image())
    assert (list(store.found([1, 2, 5, 7])), store.dropped) == ([2, 5, 7], 1)
    assert not StateStore(limit=7).add(0, one_image())


def stage(name, resumes=None):
    return SimpleNamespace(name=name) if resumes is None else SimpleNamespace(
        name=name, resumes=resumes
    )  # fmt: skip


def test_a_stage_resumes_from_the_one_of_that_name():
    assert resumed_from([stage("a"), stage("b")]) == [None, None]
    assert resumed_from([stage("a"), stage("b", "a"), stage("c")]) == [None, 0, None]
    assert resumed_from([stage("a"), stage("b"), stage("c", "b")]) == [None, None, 1]
    assert resumed_from([stage("a"), stage("b"), stage("c", "a")]) == [None, None, 0]


@pytest.mark.parametrize(
    ("stages", "complaint"),
    [
        ([stage("a", "b")], "stage 0 resumes from a stage that isn't before it"),
        ([stage("a"), stage("b", "c"), stage("c")], "stage 1 resumes from a stage that isn't"),
        ([stage("a"), stage("b", "a"), stage("c", "b")], "stage 2 resumes from a stage that isn't"),
        ([stage("a"), stage("b", "a"), stage("c", "a")], "stages 1 and 2 both resume from stage 0"),
    ],
)
def test_a_stage_resumes_from_an_earlier_one_and_alone(stages, complaint):
    with pytest.raises(ValueError, match=complaint):
        resumed_from(stages)


def test_states_with_sizes_are_not_joined_to_states_without():
    plain = States(torch.ones(1, 3, 2))
    sized = States(torch.ones(1, 3, 2), torch.ones(1, 3, dtype=torch.int16))
    for parts in ([plain, sized], [sized, plain]):
        with pytest.raises(ValueError, match="came with sizes"):
            States.joined(parts)
