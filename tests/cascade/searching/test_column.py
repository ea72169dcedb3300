"""A column reads like the list that was put into it, whatever it came in."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade.searching.column import Column, Selected
from tests.lanes import examples

puts = st.lists(
    st.tuples(st.integers(0, 30), st.lists(st.integers()), st.booleans(), st.integers(0, 99)),
    max_size=8,
)


@settings(deadline=None, max_examples=examples(50, 500))
@given(puts)
def test_a_column_is_a_list_in_pieces(puts):
    column, plain = Column(), []
    for start, items, in_a_list, changed in puts:
        start = min(start, len(plain))  # what comes after it was never visible
        column.put(start, list(items) if in_a_list else tuple(items))
        plain[start:] = items
        if plain:
            column[changed % len(plain)] = plain[changed % len(plain)] = -changed
        assert len(column) == len(plain)
        assert list(column.first(len(plain))) == plain
        assert [column[at] for at in range(len(plain))] == plain
        assert list(column.first(3)) == plain[:3]


def test_a_list_that_was_put_in_is_the_giver_s_own():
    column, given = Column(), [1, 2]
    column.put(0, given)
    column.put(2, [3])
    column[0] = 9
    assert given == [1, 2]


@given(st.lists(st.integers(), min_size=1), st.data())
def test_selected_items_are_those_at_their_places(items, data):
    places = sorted(data.draw(st.sets(st.integers(0, len(items) - 1))))
    found = Selected(items, np.asarray(places, np.int64))
    expected = [items[place] for place in places]
    assert list(found) == [found[at] for at in range(len(found))] == expected
    assert list(found[1:3]) == expected[1:3]
