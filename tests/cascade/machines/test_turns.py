"""Whoever is lost when: each item is done, results come in order, and few are under way."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade.machines.turns import Turns
from tests.lanes import examples


@settings(max_examples=examples(40, 1000))
@given(items=st.integers(0, 30), waiting=st.integers(1, 6), data=st.data())
def test_results_come_once_and_in_order_whoever_is_lost(items, waiting, data):
    taken = []
    turns = Turns((taken.append(item) or item for item in range(items)), waiting)
    given_back, in_hand = [], []
    while not turns.over:
        turn = turns.next()
        if turn is not None:
            in_hand.append(turn)
        elif in_hand:
            turn = in_hand.pop(data.draw(st.integers(0, len(in_hand) - 1)))
            if turn.lost < 3 and data.draw(st.booleans()):
                turn.lost += 1
                turns.again(turn)
            else:
                turn.result = -turn.item
        given_back += turns.finished()
        assert len(taken) - len(given_back) <= waiting
    assert given_back == [(item, -item) for item in range(items)]


def test_what_was_lost_comes_before_what_is_new():
    turns = Turns(range(3), 3)
    first, _ = turns.next(), turns.next()
    turns.again(first)
    assert turns.next() is first
    assert turns.next().item == 2
    assert turns.next() is None


def test_something_must_be_under_way():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        Turns([], 0)
