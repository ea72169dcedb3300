"""`make test-fast` leaves out the tests that take long, and no test that isn't there."""

import ast
from pathlib import Path

from tests.lanes import FILE, function_of, slowest

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
