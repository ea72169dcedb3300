"""Collections that were made apart are, once they are joined, as if one had been made."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade import Collection
from cascade.machines.joining import join
from cascade.storing.errors import CollectionError
from tests.cascade.known import Known, number_of, numbered, on_disk
from tests.lanes import examples

QUERIES = [str(number) for number in range(0, 40, 3)]


def empty(stages=None, **settings):
    stages = [Known(0), Known(1)] if stages is None else stages
    return Collection.in_memory(stages, m=[4], opener=number_of, **settings)


@settings(max_examples=examples(15, 300))
@given(
    parts=st.lists(st.lists(st.integers(0, 39), max_size=12), min_size=1, max_size=4),
    searched=st.lists(st.integers(0, 39), max_size=3),
)
def test_parts_that_are_joined_are_the_whole(parts, searched):
    stages = [Known(0), Known(1)]
    with empty(stages) as whole, empty() as joined:
        for numbers in parts:
            rows = numbered(dict.fromkeys(numbers), size=1, modified=1)
            whole.add(rows)
            with empty() as part:
                part.add(rows)
                part.search_many([str(number) for number in searched], 3)
                asked = set(part.cascade.stages[1].encoder.asked)
                join(joined, part)
            assert list(joined.rows()) == list(whole.rows())
            held = joined.cascade.later[0].store.held.positions.tolist()
            keys = {joined.cascade.catalogue.contents.keys[at] for at in held}
            assert {f"image {number}" for number in asked} <= keys
        assert joined.search_many(QUERIES, 6) == whole.search_many(QUERIES, 6)
        assert not joined.cascade.stages[0].encoder.asked


def test_what_is_joined_lasts_and_a_second_time_changes_nothing(tmp_path):
    pytest.importorskip("lancedb")
    with on_disk(tmp_path / "part", [Known(0), Known(1)], [4]) as part:
        part.add(numbered(range(9), size=1, modified=1))
        part.search("3", 2)
        with on_disk(tmp_path / "whole", [Known(0), Known(1)], [4]) as whole:
            assert join(whole, part).added == 9
            assert join(whole, part).unchanged == 9
            part.flush()
            encoded = part.status().encoded
    stages = [Known(0), Known(1)]
    with Collection.open(tmp_path / "whole", stages, opener=number_of) as whole:
        assert whole.status().encoded == encoded
        assert [hit.key for hit in whole.search("3", 1)] == ["image 3"]
        assert stages[0].asked == stages[1].asked == []


def test_what_is_known_of_an_image_is_not_replaced_by_a_reason():
    with empty([Known(0, unreadable=[2]), Known(1)]) as part, empty() as whole:
        part.add(numbered(range(4)))
        whole.add(numbered([2]))
        join(whole, part)
        assert whole.skipped == {}
        assert len(whole) == 4


def test_another_content_of_the_same_key_takes_nothing_from_the_old_one():
    """What the last stage made of the old content is not taken for the new one's."""
    with empty() as part, empty() as whole:
        part.add(numbered([1], size=1, modified=1))
        part.search("1", 1)
        join(whole, part)
        row = numbered([1], size=2, modified=2)[0].__class__("image 1", "5", 2, 2)
        part.add([row])
        join(whole, part)
        assert whole.row("image 1") == row
        assert whole.search("5", 1)[0].score == pytest.approx(1, abs=1e-3)


def test_collections_of_other_stages_or_precision_are_refused():
    with (
        empty() as whole,
        empty([Known(0), Known(2)]) as part,
        pytest.raises(CollectionError, match="stage 1 of the collection was known 1, not known 2"),
    ):
        join(whole, part)
    with (
        empty() as whole,
        empty(precision="float32") as part,
        pytest.raises(CollectionError, match=r"in float16, .* in float32"),
    ):
        join(whole, part)
