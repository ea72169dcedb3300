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

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
default_role = "code"
smartquotes = False  # `--flag` in an indented line would become a dash

_TABLE = re.compile(r"^\s*\|.*\|\s*$")
_CODE = re.compile(r"`[^`]+`(?=(\w?))")


def _ended(code: re.Match) -> str:
    return code[0] + ("\\ " if code[1] else "")


def from_markdown(app, what, name, obj, options, lines):
    """Turn what docstrings have of Markdown into reStructuredText.

    Tables are shown as text, and code may be followed by a letter, as in `Mask`s.
    """
    shown, inside = [], False
    for line in lines:
        table = bool(_TABLE.match(line))
        if table and not inside:
            shown += ["::", ""]
        elif inside and not table:
            shown.append("")
        shown.append(f"    {line.strip()}" if table else _CODE.sub(_ended, line))
        inside = table
    lines[:] = shown


def stands_alone(app, docname, source):
    """Let written reports be pages that no table of contents lists."""
    if docname.startswith("reports/"):
        source[0] = f"---\norphan: true\n---\n{source[0]}"


def setup(app):
    """Register what this file adds to Sphinx."""
    app.connect("source-read", stands_alone)
    app.connect("autodoc-process-docstring", from_markdown)
