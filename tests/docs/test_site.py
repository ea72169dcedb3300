"""The site builds without a warning, where its tools are installed."""

import runpy

import pytest

import cascade
from tests.docs.markdown import ROOT
from tests.lanes import THOROUGH

SOURCES = "sphinx.ext.viewcode"
"""Shows the source of what is documented; to colour all of it takes as long as the pages."""


@pytest.mark.filterwarnings("ignore")
def test_the_site_builds_without_a_warning(tmp_path):
    for module in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(module)
    from sphinx.cmd.build import build_main

    found = runpy.run_path(str(ROOT / "docs" / "conf.py"))["extensions"]
    extensions = [extension for extension in found if THOROUGH or extension != SOURCES]
    options = ["--builder=html", "--fail-on-warning", "--keep-going", "--quiet"]
    options += ["-D", f"extensions={','.join(extensions)}"]
    assert build_main([*options, str(ROOT / "docs"), str(tmp_path)]) == 0
    for page in ("index.html", "method.html", "guides/search.html", "api/cascade.html"):
        assert (tmp_path / page).is_file()
    reference = (tmp_path / "api" / "cascade.html").read_text()
    assert all(f'id="cascade.{name}"' in reference for name in cascade.__all__)
