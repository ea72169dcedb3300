"""What a command prints costs no run, whatever names hold and wherever the output goes."""

import io
import multiprocessing
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from commands.flags import ConfigOption
from commands.lasting import lasting_output
from commands.screen import announced, console, printable
from commands.writing.outputs import finished_directory
from compress.command import run_command

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


def three_results(root: Path) -> None:
    """A run that prints more than any buffer holds, and makes results between."""

    def main(_options: ConfigOption) -> None:
        for number in range(3):
            with finished_directory(root / str(number), False) as directory:
                (directory / "report.json").write_text("{}")
            for _ in range(2000):
                print("a table")
            console().print("wrote", number)
            print("progress", file=sys.stderr)

    run_command(main, ConfigOption, "example", [])


def redirect(stream: str, place: str | None) -> None:
    """Do to a standard stream what a shell does by `>place` or, without one, by `>&-`."""
    number = {"stdin": 0, "stdout": 1, "stderr": 2}[stream]
    if place is None:
        os.close(number)
        setattr(sys, stream, None)
        return
    if place == "nobody":
        reader, opened = os.pipe()
        os.close(reader)
    else:
        opened = os.open(place, os.O_WRONLY | os.O_CREAT)
    os.dup2(opened, number)
    setattr(sys, stream, open(number, "w", closefd=False))  # noqa: SIM115


@pytest.mark.parametrize(
    "streams",
    [
        {"stdout": "nobody"},
        {"stdout": None},
        {"stdin": None, "stdout": None, "stderr": None},
        {"stdout": "/dev/full"},
        {"stderr": None},
        {"stderr": "/dev/full"},
    ],
)
def test_a_run_finishes_whoever_listens(tmp_path, streams):
    def run() -> None:
        for stream, place in {"stderr": str(tmp_path / "said"), **streams}.items():
            redirect(stream, place)
        three_results(tmp_path)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join(120)
    assert process.exitcode == 0
    made = sorted(each.name for each in tmp_path.iterdir() if each.name != "said")
    assert made == ["0", "1", "2"]
    if "stderr" not in streams:
        said = (tmp_path / "said").read_text()
        assert said.count("progress") == 3
        full = streams["stdout"] == "/dev/full"
        assert ("standard output can't be written: " in said) == full


@pytest.mark.parametrize("terminal", [False, True])
def test_what_is_announced_is_on_a_terminal_for_as_long_as_it_takes(monkeypatch, terminal):
    class Stream(io.StringIO):
        def isatty(self):
            return terminal

    monkeypatch.setattr(sys, "stderr", Stream())
    with announced("loading"):
        assert sys.stderr.getvalue() == ("loading ..." if terminal else "")
    assert sys.stderr.getvalue().endswith("\r\x1b[K") == terminal
