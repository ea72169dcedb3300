"""Pictures that are drawn from reports start without the libraries that towers need."""

import subprocess
import sys

import pytest

HEAVY = {"torch", "transformers", "datasets", "pandas"}


@pytest.mark.parametrize(
    "module",
    [
        "figures.pareto",
        "figures.masking",
        "figures.patches",
        "figures.stream",
        "evaluation.seeds",
        "evaluation.equal_time",
    ],
)
def test_commands_that_read_reports_alone_import_no_library_of_towers(module):
    script = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    assert module in loaded
    assert not HEAVY & set(loaded)
