"""The site builds without a warning, where its tools are installed."""

import pytest

import cascade
from tests.docs.markdown import ROOT
from tests.fresh import python


def test_the_site_builds_without_a_warning(tmp_path):
    for module in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(module)
    options = ("--builder=html", "--fail-on-warning", "--keep-going", "--quiet")
    python("-m", "sphinx", *options, ROOT / "docs", tmp_path)
    for page in ("index.html", "method.html", "guides/search.html", "api/cascade.html"):
        assert (tmp_path / page).is_file()
    reference = (tmp_path / "api" / "cascade.html").read_text()
    assert all(f'id="cascade.{name}"' in reference for name in cascade.__all__)
