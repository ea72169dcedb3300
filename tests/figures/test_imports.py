"""Pictures that are drawn from reports start without the libraries that towers need."""

import subprocess
import sys

HEAVY = {"torch", "transformers", "datasets", "pandas"}
READERS = (
    "figures.pareto",
    "figures.masking",
    "figures.patches",
    "figures.stream",
    "figures.breakdown",
    "figures.indexing",
    "evaluation.seeds",
    "evaluation.equal_time",
)
"""Commands that read reports alone."""


def test_commands_that_read_reports_alone_import_no_library_of_towers():
    """One after another in one process; the first that imports one of them is named."""
    script = f"import importlib, sys\nfor name in {READERS}:\n"
    script += "    importlib.import_module(name)\n    print(name, *sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert [line.split()[0] for line in found] == list(READERS)
    for line in found:
        module, *loaded = line.split()
        assert not HEAVY & set(loaded), module
