"""Imports go down: what `.importlinter` says holds."""

import pytest

from tests.docs.markdown import ROOT


def test_imports_go_down(monkeypatch, capsys):
    linter = pytest.importorskip("importlinter.cli")
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT))
    status = linter.lint_imports(config_filename=str(ROOT / ".importlinter"), no_cache=True)
    assert status == 0, capsys.readouterr().out
