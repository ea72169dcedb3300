"""What is certified holds as often as is said, and what can be said of small cases is checked."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from cascade.measuring.finding import NEVER, Found
from evaluation.planning.certifying import (
    P_VALUES,
    betting,
    hoeffding_bentkus,
    lower_bound,
    queries_needed,
    smallest_m,
)
from tests.lanes import examples

BOTH = pytest.mark.parametrize("p_value", P_VALUES.values(), ids=P_VALUES)
SHARES = st.lists(st.integers(0, 8).map(lambda found: found / 8), min_size=1, max_size=60)
TARGETS = st.floats(0.05, 0.999)


def found_of(rows):
    return Found(np.sort(np.asarray(rows, np.int64), axis=1))


@BOTH
@given(SHARES, TARGETS)
@settings(max_examples=examples(33, 500), deadline=None)
def test_a_p_value_is_one_and_ignores_the_order(p_value, shares, target):
    values = np.asarray(shares)
    assert 0 <= p_value(values, target) <= 1
    assert p_value(values[::-1].copy(), target) == pytest.approx(p_value(values, target), rel=1e-9)


@BOTH
@given(SHARES, TARGETS, TARGETS, st.integers(0, 59))
@settings(max_examples=examples(33, 500), deadline=None)
def test_it_falls_with_agreement_and_rises_with_the_target(p_value, shares, target, other, at):
    values = np.asarray(shares)
    better = values.copy()
    better[at % len(values)] = 1
    assert p_value(better, target) <= p_value(values, target) * (1 + 1e-9)
    low, high = sorted((target, other))
    assert p_value(values, low) <= p_value(values, high) * (1 + 1e-9)


@BOTH
def test_what_agrees_no_more_than_the_target_is_never_certain(p_value):
    values = np.asarray([1.0] * 90 + [0.0] * 10)
    assert p_value(values, 0.9) > 0.5
    assert p_value(values, 0.95) == 1
    assert p_value(np.ones(1000), 1) == pytest.approx(1)
    assert p_value(np.ones(1000), 0.95) < 1e-15


@given(st.lists(st.integers(0, 8), min_size=1, max_size=300), st.floats(0.02, 0.98))
@settings(max_examples=examples(33, 500), deadline=None)
def test_hoeffding_bentkus_is_that_of_mapie(found, target):
    control = pytest.importorskip("mapie.risk_control.methods")
    values = np.asarray(found) / 8  # exact sums: a ceiling forgives no rounding
    risk = np.asarray([1 - values.mean()])
    theirs = control.compute_hoeffding_bentkus_p_value(risk, len(values), 1 - target)[0, 0]
    if risk[0] < 1:  # theirs takes the logarithm of 0 there
        assert hoeffding_bentkus(values, target) == pytest.approx(min(1, theirs), rel=1e-6)


@BOTH
@pytest.mark.parametrize(
    "chances", [(0.1, 0, 0.9), (0.05, 0.1, 0.85), (0, 0.4, 0.6), (0.4, 0.2, 0.4)]
)
def test_it_is_small_no_more_often_than_allowed(p_value, chances):
    """Every outcome of six queries whose agreements are 0, a half or 1, their mean the target."""
    target = chances[1] / 2 + chances[2]
    outcomes = list(product(range(3), repeat=6))
    p_values = np.asarray([p_value(np.asarray(each) / 2, target) for each in outcomes])
    likely = np.asarray([np.prod([chances[value] for value in each]) for each in outcomes])
    for level in (0.05, 0.2, 0.5, 0.9):
        assert likely[p_values <= level].sum() <= level + 1e-12


@BOTH
def test_small_samples_reject_no_more_often_than_allowed(p_value):
    """Every outcome of n coins whose mean is the target: the chance of p ≤ level is ≤ level."""
    for count in (5, 40, 200):
        for target in (0.5, 0.9, 0.95):
            heads = np.arange(count + 1)
            outcomes = [np.r_[np.ones(h), np.zeros(count - h)] for h in heads]
            p_values = np.asarray([p_value(values, target) for values in outcomes])
            chances = binom.pmf(heads, count, target)
            for level in (0.01, 0.05, 0.1, 0.5):
                assert chances[p_values <= level].sum() <= level + 1e-9


def test_betting_needs_fewer_queries_where_agreements_vary_little():
    values = np.asarray([1.0] * 600 + [0.9] * 400)  # mean 0.96
    assert betting(values, 0.95) < 0.001 < 0.05 < hoeffding_bentkus(values, 0.95)
    assert lower_bound(values, 0.95) > lower_bound(values, 0.95, hoeffding_bentkus)


@BOTH
@given(SHARES, st.floats(0.5, 0.99))
@settings(max_examples=examples(16, 250), deadline=None)
def test_the_lower_bound_is_where_the_test_turns(p_value, shares, confidence):
    values = np.asarray(shares)
    bound = lower_bound(values, confidence, p_value)
    assert 0 <= bound <= values.mean() + 1e-9
    if bound > 1e-6:
        assert p_value(values, bound - 1e-7) <= 1 - confidence
    if bound < 1 - 1e-6:
        assert p_value(values, bound + 1e-7) > 1 - confidence


@BOTH
@given(
    st.lists(st.lists(st.integers(1, 30), min_size=4, max_size=4), min_size=20, max_size=80),
    st.floats(0.05, 0.9),
    st.floats(0.5, 0.95),
)
@settings(max_examples=examples(20, 300), deadline=None)
def test_halving_ends_where_walking_down_does(p_value, rows, target, confidence):
    found = found_of(rows)
    walked = None
    for m in range(24, 2, -1):
        if p_value(found.agreements(m), target) > 1 - confidence:
            break
        walked = m
    assert smallest_m(found, target, confidence, 3, 24, p_value) == walked


def test_agreements_are_shares_of_what_m_candidates_hold():
    found = found_of([[1, 5, 9, NEVER], [2, 2, 3, 4]])
    assert found.agreements(5).tolist() == [0.5, 1]
    assert found.agreements(1).tolist() == [0.25, 0]
    assert found.agreements(10**9).tolist() == [0.75, 1]


@BOTH
def test_nothing_is_certified_by_too_few_queries_and_it_is_known_how_many_are(p_value):
    needed = queries_needed(0.95, 0.95, p_value)
    assert smallest_m(found_of([[1]] * needed), 0.95, 0.95, 1, 9, p_value) == 1
    assert smallest_m(found_of([[1]] * (needed - 1)), 0.95, 0.95, 1, 9, p_value) is None
    assert 59 <= needed <= 100


def test_what_is_out_of_range_is_refused():
    found = found_of([[1]])
    with pytest.raises(ValueError, match="confidence"):
        smallest_m(found, 0.9, 1.0, 1, 2)
    with pytest.raises(ValueError, match="m goes from"):
        smallest_m(found, 0.9, 0.9, 3, 2)
    with pytest.raises(ValueError, match="the target"):
        betting(np.ones(3), 0)
    with pytest.raises(ValueError, match="in \\[0, 1\\]"):
        betting(np.asarray([1.5]), 0.5)
    with pytest.raises(ValueError, match="at least one query"):
        hoeffding_bentkus(np.ones(0), 0.5)
    with pytest.raises(ValueError, match="can't be certified"):
        queries_needed(1, 0.95)


def population(seed):
    """The m's at which 10 results of 4,000 queries are found: some hard, most easy."""
    random = np.random.default_rng(seed)
    hard = random.random((4000, 1)) < 0.2
    typical = np.where(hard, 60, 6)
    return np.ceil(random.exponential(typical, (4000, 10)) + 1).astype(np.int64)


def all_or_nothing(seed):
    """All results of a query are found at one m: the values that vary most."""
    random = np.random.default_rng(seed)
    return np.repeat(np.ceil(random.exponential(20, (4000, 1)) + 1).astype(np.int64), 10, axis=1)


@BOTH
@pytest.mark.parametrize("of_queries", [population, all_or_nothing])
def test_the_target_holds_in_at_least_as_many_draws_as_is_said(of_queries, p_value):
    """The m chosen from 300 queries reaches the target in 95 % of draws or more."""
    everyone = Found(np.sort(of_queries(0), axis=1))
    true = np.asarray([everyone.agreements(m).mean() for m in range(1, 401)])
    random, draws = np.random.default_rng(1), examples(200, 1000)
    chosen = [
        smallest_m(Found(everyone.at[random.integers(0, 4000, 300)]), 0.9, 0.95, 10, 400, p_value)
        for _ in range(draws)
    ]
    assert None not in chosen
    held = sum(true[m - 1] >= 0.9 for m in chosen) / draws
    print(f"{of_queries.__name__}, {p_value.__name__}: held in {held:.1%} of {draws} draws")
    assert held >= 0.95 - 3 * (0.95 * 0.05 / draws) ** 0.5
