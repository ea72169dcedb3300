"""Intervals resample images, not captions, and share their resamples."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.measuring.bootstrap import Bootstrap
from evaluation.measuring.values import Interval
from tests.lanes import examples

unhurried = settings(deadline=None, max_examples=examples(20, 60))  # a busy machine is no failure


def five_captions(images):
    return torch.arange(images).repeat_interleave(5)


@unhurried
@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(0, 5))
def test_the_value_is_the_mean_in_percent(hits, seed):
    hits = torch.tensor(hits)
    found = Bootstrap(torch.arange(len(hits)), samples=50, seed=seed).interval(hits)
    assert found.value == pytest.approx(100 * hits.double().mean().item())
    assert 0 <= found.low <= found.high <= 100


def test_a_value_that_every_query_shares_has_no_spread():
    bootstrap = Bootstrap(five_captions(7), samples=20)
    assert bootstrap.interval(torch.ones(35, dtype=torch.bool)) == Interval(100.0, 100.0, 100.0)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    values = torch.rand(60, generator=torch.Generator().manual_seed(0))
    first = Bootstrap(torch.arange(60), samples=100, seed=3).interval(values)
    assert Bootstrap(torch.arange(60), samples=100, seed=3).interval(values) == first
    assert Bootstrap(torch.arange(60), samples=100, seed=4).interval(values) != first


def test_captions_that_agree_within_an_image_do_not_narrow_the_interval():
    images = torch.rand(200, generator=torch.Generator().manual_seed(0)) < 0.4
    one = Bootstrap(torch.arange(200), samples=500).interval(images)
    five = Bootstrap(five_captions(200), samples=500).interval(images.repeat_interleave(5))
    assert five == one
    queries_as_images = Bootstrap(torch.arange(1000), samples=500)
    naive = queries_as_images.interval(images.repeat_interleave(5))
    assert naive.high - naive.low < 0.6 * (five.high - five.low)


def test_the_interval_has_the_width_of_the_normal_approximation():
    values = torch.arange(1000) % 4 == 0
    found = Bootstrap(torch.arange(1000), samples=4000).interval(values)
    width = 2 * 1.96 * 100 * np.sqrt(0.25 * 0.75 / 1000)
    assert found.high - found.low == pytest.approx(width, rel=0.1)


def test_a_difference_is_paired_query_by_query():
    generator = torch.Generator().manual_seed(0)
    reference = torch.rand(300, generator=generator) < 0.5
    lost = torch.arange(300) % 50 == 0
    found = Bootstrap(torch.arange(300), samples=500).difference(reference & ~lost, reference)
    assert found.value == pytest.approx(-100 * (reference & lost).double().mean().item())
    assert found.high - found.low < 4  # unpaired, two halves of 300 differ by ± 8
    assert Bootstrap(torch.arange(300)).difference(reference, reference) == Interval(0, 0, 0)


def test_names_of_images_do_not_matter_and_captions_may_be_uneven():
    images = torch.tensor([900, 900, 4, 17, 17, 17])
    values = torch.tensor([1.0, 0.0, 1.0, 0.5, 0.5, 0.0])
    found = Bootstrap(images, samples=200).interval(values)
    assert found.value == pytest.approx(50)
    assert found.low >= 100 / 3 - 1e-9  # the worst image, alone in a resample
    assert found.high <= 100


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"images": torch.zeros(0)}, "not empty"),
        ({"images": torch.zeros(3), "samples": 0}, "samples"),
        ({"images": torch.zeros(3), "level": 1.0}, "level"),
    ],
)
def test_a_bootstrap_of_nothing_is_refused(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        Bootstrap(**arguments)


def test_values_must_be_finite_and_one_a_query():
    bootstrap = Bootstrap(torch.arange(3), samples=10)
    with pytest.raises(ValueError, match="one value per query"):
        bootstrap.interval(torch.zeros(2))
    with pytest.raises(ValueError, match="finite"):
        bootstrap.interval(torch.tensor([0.0, 1.0, float("nan")]))
    with pytest.raises(ValueError, match="pairs differ"):
        bootstrap.difference(torch.zeros(3), torch.zeros(2))
