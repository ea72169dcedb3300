"""A collection takes over another m, and what was certified of it, for good."""

import json

import pytest

from cascade import Collection
from cascade.collecting.record import FILE, Plan
from tests.cascade.known import Known, number_of, numbered, of_rows, on_disk

PLAN = Plan(5, 0.9, 0.95, 100, "queries", 40, 40)
QUERIES = [str(query) for query in range(0, 40, 4)]


@pytest.fixture
def stages():
    return [Known(0), Known(1)]


@pytest.fixture(params=["memory", "lance"])
def collection(request, tmp_path, stages):
    if request.param == "memory":
        made = Collection.in_memory(stages, [12], opener=number_of)
    else:
        made = on_disk(tmp_path / "c", stages, [12])
    with made:
        made.add(numbered(range(40)))
        yield made


def test_hits_are_those_of_the_new_m_and_nothing_is_encoded_twice(collection, stages):
    collection.search_many(QUERIES, 5)
    before = len(stages[1].asked)
    collection.adopt([30], PLAN)
    assert (collection.m, collection.plan) == ((30,), PLAN)
    expected = of_rows([Known(0), Known(1)], [30], collection.rows())
    assert collection.search_many(QUERIES, 5) == expected.search_many(QUERIES, 5)
    assert len(stages[1].asked) == len(set(stages[1].asked)) > before
    with pytest.raises(ValueError, match="m must be positive"):
        collection.adopt([0])
    collection.adopt([7])
    assert (collection.m, collection.plan) == ((7,), None)


def test_it_lasts_and_another_m_has_no_plan(tmp_path, stages):
    with on_disk(tmp_path / "c", stages, [12]) as collection:
        collection.adopt([30], PLAN)
    with Collection.open(tmp_path / "c", stages) as again:
        assert (again.m, again.plan, again.status().m) == ((30,), PLAN, (30,))
    with Collection.open(tmp_path / "c", stages, [20]) as other:
        assert (other.m, other.plan) == ((20,), None)


def test_a_record_without_a_plan_is_read(tmp_path, stages):
    on_disk(tmp_path / "c", stages, [12]).close()
    record = tmp_path / "c" / FILE
    entries = json.loads(record.read_text())
    del entries["plan"]
    record.write_text(json.dumps(entries))
    with Collection.open(tmp_path / "c", stages) as again:
        assert (again.m, again.plan) == ((12,), None)
