"""Imports go down: what `.importlinter` says holds."""

import os
import subprocess
import sys

import pytest

from tests.docs.markdown import ROOT


def test_imports_go_down():
    """In a process of its own: import-linter turns off the loggers that are there already."""
    pytest.importorskip("importlinter")
    code = "from importlinter.cli import lint_imports; import sys; "
    code += "sys.exit(lint_imports(config_filename='.importlinter', no_cache=True))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
