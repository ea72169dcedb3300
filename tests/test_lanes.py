"""`make test-fast` leaves out the tests that take long, and no test that isn't there."""

import ast
from pathlib import Path

import pytest

from tests import lanes
from tests.lanes import FILE, examples, function_of, slowest, sweep

LOG = """
3.00s call     tests/compress/test_a.py::test_one[0.5]
2.00s setup    tests/compress/test_a.py::test_one[a b]
4.00s call     tests/compress/room/test_b.py::test_two
1.00s call     tests/test_c.py::test_three
= 4 passed in 10.00s =
"""


def test_the_slowest_functions_are_left_out_until_the_others_fit():
    lines = LOG.splitlines()
    assert slowest(lines, 10) == []
    assert slowest(lines, 5) == ["test_a.py::test_one"]
    assert slowest(lines, 4.9) == ["test_a.py::test_one", "test_b.py::test_two"]


def test_a_parameter_may_be_a_path():
    assert function_of("tests/docs/test_a.py::test_one[docs/guides/b.md]") == "test_a.py::test_one"
    assert function_of("tests/docs/test_a.py::test_one") == "test_a.py::test_one"


def test_every_slow_test_is_there():
    defined = set()
    for file in Path(__file__).parent.rglob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef):
                defined.add(f"{file.name}::{node.name}")
    gone = sorted(set(FILE.read_text().split()) - defined)
    assert not gone, f"take these lines out of {FILE.name}"


def test_slow_tests_are_marked(request):
    slow = set(FILE.read_text().split())
    for item in request.session.items:
        assert (item.get_closest_marker("slow") is not None) == (function_of(item.nodeid) in slow)


@pytest.mark.parametrize("thorough", [False, True])
def test_all_values_are_swept_where_that_is_asked_for(monkeypatch, thorough):
    monkeypatch.setattr(lanes, "THOROUGH", thorough)
    assert sweep({"a": 1, "b": 2, "c": 3}, ("c", "a")) == (
        ["a", "b", "c"] if thorough else ["c", "a"]
    )
    assert examples(3, 10) == (10 if thorough else 3)
    with pytest.raises(ValueError, match="'d'"):
        sweep("abc", ("a", "d"))
