"""The site: Sphinx reads these pages (MyST Markdown) and the docstrings; `make docs` builds it."""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

project = "clip-cascade"
copyright = "the clip-cascade contributors, Apache-2.0"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = "clip-cascade"

myst_enable_extensions = ["dollarmath"]
myst_fence_as_directive = {"math"}
myst_heading_anchors = 4
nitpicky = False

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
default_role = "code"

_TABLE = re.compile(r"^\s*\|.*\|\s*$")


def tables_stay_as_they_are(app, what, name, obj, options, lines):
    """Show the Markdown tables of docstrings as text: reStructuredText has none of that kind."""
    shown, inside = [], False
    for line in lines:
        table = bool(_TABLE.match(line))
        if table and not inside:
            shown += ["::", ""]
        elif inside and not table:
            shown.append("")
        shown.append(f"    {line.strip()}" if table else line)
        inside = table
    lines[:] = shown


def setup(app):
    """Register what this file adds to Sphinx."""
    app.connect("autodoc-process-docstring", tables_stay_as_they_are)
