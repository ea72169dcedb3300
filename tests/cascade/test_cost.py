"""The cost model says what arXiv 2303.15595 says, and nothing for input without meaning."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade.cost import lifetime_speedup, query_speedup, return_fractions
from tests.lanes import examples

unhurried = settings(deadline=None, max_examples=examples(20, 60))  # a busy machine is no failure

seconds = st.floats(1e-6, 1e3)
share = st.floats(0, 1)


@st.composite
def cascades(draw, fewest=2):
    times = draw(st.lists(seconds, min_size=fewest, max_size=5))
    steps = draw(st.lists(st.integers(1, 20), min_size=len(times) - 1, max_size=len(times) - 1))
    m = [sum(steps[i:]) for i in range(len(steps))]
    return times, m


@unhurried
@given(seconds, seconds, share)
def test_two_stages_cost_the_first_and_the_share_that_reaches_the_second(first, last, f):
    assert lifetime_speedup([first, last], f) == pytest.approx(last / (first + f * last))


@unhurried
@given(cascades(), share)
def test_one_f_is_the_same_f_for_every_later_stage(cascade, f):
    times, _ = cascade
    each = lifetime_speedup(times, [f] * (len(times) - 1))
    assert lifetime_speedup(times, f) == pytest.approx(each)


@unhurried
@given(cascades(), share, share)
def test_a_larger_share_never_makes_a_cascade_cheaper(cascade, f, g):
    times, _ = cascade
    assert lifetime_speedup(times, max(f, g)) <= lifetime_speedup(times, min(f, g))


@unhurried
@given(cascades(), share, st.floats(0.01, 100))
def test_speedups_have_no_unit(cascade, f, unit):
    times, m = cascade
    scaled = [t * unit for t in times]
    assert lifetime_speedup(scaled, f) == pytest.approx(lifetime_speedup(times, f))
    assert query_speedup(scaled, m) == pytest.approx(query_speedup(times, m))


@unhurried
@given(seconds, share)
def test_one_stage_is_an_ordinary_search(t, f):
    assert lifetime_speedup([t], f) == 1


@unhurried
@given(seconds, seconds, st.integers(1, 1000))
def test_a_two_stage_cascade_is_its_own_baseline(first, last, m):
    assert query_speedup([first, last], [m]) == pytest.approx(1)


def test_a_cheap_stage_in_between_pays_off_for_a_cold_query():
    # 50 candidates for the last stage, against 50 for the middle and 10 for the last
    assert query_speedup([1, 2, 10], [50, 10]) == pytest.approx(500 / (50 * 2 + 10 * 10))


@unhurried
@given(cascades(), share, seconds)
def test_a_stage_that_resumes_is_compared_with_its_tower_from_the_start(cascade, f, full_tower):
    times, m = cascade
    ratio = full_tower / times[-1]
    lifetime = lifetime_speedup(times, f, full_tower=full_tower)
    assert lifetime == pytest.approx(ratio * lifetime_speedup(times, f))
    a_query = query_speedup(times, m, full_tower=full_tower)
    assert a_query == pytest.approx(ratio * query_speedup(times, m))


def test_resuming_pays_for_the_rest_of_the_tower_only():
    # a tower of 12 layers, of which the first stage has run 4: 8 are left
    assert lifetime_speedup([4, 8], 0.25, full_tower=12) == pytest.approx(12 / (4 + 0.25 * 8))
    assert query_speedup([4, 8], [50], full_tower=12) == pytest.approx(12 / 8)


@pytest.mark.parametrize("full_tower", [0.0, -1.0, float("nan"), float("inf")])
def test_the_full_tower_takes_time(full_tower):
    with pytest.raises(ValueError, match="seconds per image"):
        lifetime_speedup([1, 2], 0.1, full_tower=full_tower)
    with pytest.raises(ValueError, match="seconds per image"):
        query_speedup([1, 2], [5], full_tower=full_tower)


@unhurried
@given(cascades(fewest=3))
def test_the_first_stage_does_not_count_for_a_query(cascade):
    times, m = cascade
    assert query_speedup([7 * times[0], *times[1:]], m) == pytest.approx(query_speedup(times, m))


def test_f_may_differ_by_stage():
    assert lifetime_speedup([1, 2, 10], [0.5, 0.1]) == pytest.approx(10 / (1 + 1 + 1))


def test_f_is_measured_from_what_was_encoded():
    assert return_fractions([200, 50, 10]) == (0.25, 0.05)
    assert return_fractions([200]) == ()


@pytest.mark.parametrize("encoded", [[], [0], [0, 0], [5, 6], [5, -1]])
def test_f_needs_a_collection_and_no_more_than_it(encoded):
    with pytest.raises(ValueError, match=r"first stage|can encode"):
        return_fractions(encoded)


@pytest.mark.parametrize("times", [[], [0.0, 1.0], [1.0, -1.0], [float("nan")], [1, float("inf")]])
def test_seconds_must_be_positive_and_finite(times):
    with pytest.raises(ValueError, match="seconds per image"):
        lifetime_speedup(times, 0.1)


@pytest.mark.parametrize("f", [-0.1, 1.1, float("nan"), [0.1, 0.1], []])
def test_f_must_be_a_share(f):
    with pytest.raises(ValueError, match=r"^f "):
        lifetime_speedup([1.0, 2.0], f)


@pytest.mark.parametrize("m", [[], [50, 10, 5], [10, 50], [50, 50], [50, 0], [50, 1.5], [True, 1]])
def test_m_must_fit_and_decrease(m):
    with pytest.raises(ValueError, match=r"\bm\b"):
        query_speedup([1, 2, 10], m)


def test_a_single_stage_has_no_candidates():
    with pytest.raises(ValueError, match="single stage"):
        query_speedup([1.0], [])
