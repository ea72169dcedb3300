"""What a command prints costs no run, whatever names hold and wherever the output goes."""

import io
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from compress.screen import console, lasting_output, printable

ODD = [
    "[/]",
    "[bold]x[/bold]",
    ":smile:",
    "caf\udce9",
    "snow\u2603",
    "a\nb",
    "a\u2028b",
    "\x1b[31m",
]


@given(st.text(st.characters(exclude_categories=[])))
def test_a_printable_text_is_one_line_that_any_stream_takes(text):
    shown = printable(text)
    assert shown.isprintable()
    assert len(shown.splitlines()) <= 1
    assert text.isprintable() == (shown == text)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_names_are_shown_as_they_are_in_any_encoding(monkeypatch, encoding):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding))
    with lasting_output():
        for name in ODD:
            print(name)
            console().print(f"skipped: {printable(name)}")
            table = Table(title=name)
            table.add_column(name)
            table.add_row(name)
            console().print(table)
    shown = written.getvalue().decode(encoding)
    for text in ("[/]", "[bold]x[/bold]", ":smile:", "caf\\udce9"):
        assert f"skipped: {text}" in shown


RUN = """
import sys
from pathlib import Path
from compress.command import ConfigOption, finished_directory, run_command, console

def main(options):
    for number in range(3):
        with finished_directory(Path(sys.argv[1]) / str(number), False) as directory:
            (directory / "report.json").write_text("{}")
        for _ in range(2000):
            print("a table")
        console().print("wrote", number)
        print("progress", file=sys.stderr)

run_command(main, ConfigOption, "example", [])
"""


@pytest.mark.parametrize(
    "redirected",
    [
        "| head -1 >/dev/null",
        ">&-",
        ">&- 2>&-",
        "<&- >&- 2>&-",
        ">/dev/full",
        "2>&-",
        "2>/dev/full",
    ],
)
def test_a_run_finishes_whoever_listens(tmp_path, redirected):
    command = f'"$0" -c "$1" "$2" {redirected}; exit ${{PIPESTATUS[0]}}'
    script = ["bash", "-c", command, sys.executable, RUN, str(tmp_path)]
    found = subprocess.run(script, capture_output=True, text=True, cwd=os.getcwd(), check=False)
    assert found.returncode == 0, found.stderr
    assert sorted(each.name for each in tmp_path.iterdir()) == ["0", "1", "2"]
    assert "Traceback" not in found.stderr
    assert ("standard output can't be written" in found.stderr) == (redirected == ">/dev/full")
