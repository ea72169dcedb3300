"""What a sample of images says about all of them: checked by counting all samples there are."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade.measuring.sampling import drawn, loss_factor, results_of_sample
from tests.lanes import examples


@st.composite
def collections(draw):
    """Numbers of images, sampled ones and results."""
    images = draw(st.integers(2, 9))
    return images, draw(st.integers(1, images)), draw(st.integers(1, images))


def missed_on_average(missed, sampled, wanted):
    """The share missed of a sample's best, over all samples; `missed` is by rank of all images."""
    samples = list(combinations(range(len(missed)), sampled))
    return sum(sum(missed[rank] for rank in some[:wanted]) for some in samples) / (
        wanted * len(samples)
    )


@given(collections(), st.data())
@settings(max_examples=examples(60, 600), deadline=None)
def test_the_k_best_miss_at_most_so_many_times_what_a_samples_best_miss(numbers, data):
    images, sampled, k = numbers
    missed = data.draw(st.lists(st.integers(0, 1), min_size=images, max_size=images))
    wanted, factor = results_of_sample(k, sampled, images), loss_factor(k, sampled, images)
    average = missed_on_average(missed, sampled, wanted)
    assert sum(missed[:k]) / k <= factor * average + 1e-9
    only_the_last = [int(rank == k - 1) for rank in range(images)]  # no smaller factor will do
    least = missed_on_average(only_the_last, sampled, wanted)
    assert 1 / k == pytest.approx(factor * least)


@given(collections(), st.data())
@settings(max_examples=examples(60, 600), deadline=None)
def test_they_miss_no_more_if_worse_results_are_missed_no_less(numbers, data):
    images, sampled, k = numbers
    losses = st.lists(st.floats(0, 1), min_size=images, max_size=images).map(sorted)
    missed = data.draw(losses)
    average = missed_on_average(missed, sampled, results_of_sample(k, sampled, images))
    assert sum(missed[:k]) / k <= average + 1e-9


def test_all_images_say_it_exactly():
    assert results_of_sample(10, 500, 500) == 10
    assert loss_factor(10, 500, 500) == 1
    assert results_of_sample(10, 2_000, 100_000) == 1
    assert 1 < loss_factor(10, 2_000, 100_000) < 6
    with pytest.raises(ValueError, match="0 images sampled of 5"):
        results_of_sample(1, 0, 5)
    with pytest.raises(ValueError, match="at most"):
        loss_factor(6, 2, 5)


def test_a_larger_sample_holds_a_smaller_one_and_additions_change_little():
    keys = [f"photo {number}" for number in range(400)]
    small, large = drawn(keys, 50, 3), drawn(keys, 200, 3)
    assert len(set(small)) == 50
    assert set(small) <= set(large)
    assert small == sorted(small)
    more = drawn([*keys, *(f"new {number}" for number in range(20))], 50, 3)
    assert len(set(small) & set(more)) >= 40
    assert drawn(keys, 50, 4) != small
    assert drawn(keys, 1000, 3) == list(range(400))
    assert len(drawn(["a\udcff", "b"], 1, 0)) == 1


def test_each_image_is_drawn_as_often_as_others():
    keys = [f"photo {number}" for number in range(20)]
    counts = [0] * 20
    for seed in range(800):
        for place in drawn(keys, 5, seed):
            counts[place] += 1
    assert all(abs(count - 200) < 4 * (800 * 0.25 * 0.75) ** 0.5 for count in counts)
