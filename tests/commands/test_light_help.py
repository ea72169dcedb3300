"""Help, and what is wrong with a command line, come at once: before anything costly is imported."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from commands.subcommands import SUBCOMMANDS

ROOT = Path(__file__).resolve().parents[2]
HEAVY = (
    "torch",
    "transformers",
    "datasets",
    "scipy",
    "pandas",
    "matplotlib",
    "torch_pruning",
    "numpy",
    "PIL",
    "safetensors",
    "huggingface_hub",
    "fastapi",
    "uvicorn",
)
MODULE = "runpy.run_module(name, run_name='__main__', alter_sys=True)"
SUBCOMMAND = "run_subcommand([name, *line])"
REFUSED = {
    "recover": (
        ["--mac-constraint", "2"],
        ["--mac-constraint", "0.5", "--heads", "3"],
        ["--align", "none", "--align-features", "8"],
        ["--align", "ridge", "--tower", "text"],
        ["--structures", "head_dims", "--heads", "3"],
        ["--latency-constraint", "0.5", "--allocate", "scores"],
    ),
    "sensitivity": (["--heads"],),
    "joint": (["--align", "none"],),
    "resolution": (["--choose-from", "96", "96"],),
    "experiment": (["--tower", "text"], ["--m", "50", "10"]),
    "patches": ([], ["--stage", "nowhere"]),
    "index": ([], ["-", "--prune"], ["--m", "0"]),
    "stream": (["--exponent", "-1"], ["--largest", "0"]),
    "draw-stream": (["--report"], ["--titles", "one", "two"]),
    "search": ([], ["photos.cascade"], ["photos.cascade", "dog", "--queries", "file"]),
    "plan": (["--k", "20", "--largest", "10"], ["--queries", "q.txt", "--drawn", "500"]),
    "serve": (["--port", "70000"], ["--refine", "2"]),
    "seeds": (["--report", "one.json"],),
    "table": (["--report"], ["--overwrite"]),
    "text-conditioned": (["--m", "10"], ["--keep"]),
    "zero-shot": (["--classes", "names.txt"], ["--m", "0"]),
    "latency": (
        ["--batch", "0"],
        ["--batch", "1", "1"],
        ["--models", "A", "./A"],
        ["--score", "none", "--images", "5"],
    ),
    "draw-latency": (["--report"], ["--batch", "0"]),
    "breakdown": (["--last", "one", "one"], ["--threads", "0"], ["--f", "2"]),
    "draw-breakdown": (["--report"], ["--titles", "one", "two"]),
    "draw-mask": ([],),
    "draw-repair": ([],),
    "demo-train": (["--samples", "1"],),
    "demo-photographs": (["--stale", "0.6", "--without-thumbnail", "0.6"], ["--noise", "-1"]),
}
"""Lines that are wrong in themselves, by the command."""


def ran(call: str, *lines: tuple[str, list[str]]) -> list[dict]:
    """How a process that runs commands one after the other ends each, and what it has imported."""
    program = f"""
import contextlib, io, json, runpy, sys
from commands.choosing import run_subcommand
for name, line in json.loads(sys.argv[1]):
    sys.argv[:] = ["", *line]
    out, err, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            {call}
        except SystemExit as ended:
            status = ended.code
    heavy = [each for each in {HEAVY} if each in sys.modules]
    said = (out.getvalue(), err.getvalue())
    print(json.dumps(dict(name=name, line=line, status=status, said=said, heavy=heavy)))
"""
    found = subprocess.run(
        [sys.executable, "-c", program, json.dumps(lines)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    return [json.loads(each) for each in found.stdout.splitlines()]


@pytest.mark.parametrize("call", [MODULE, SUBCOMMAND], ids=["module", "sub-command"])
def test_help_imports_nothing_costly(call):
    names = [each.module if call == MODULE else each.name for each in SUBCOMMANDS]
    for name, end in zip(names, ran(call, *((name, ["--help"]) for name in names)), strict=True):
        assert (end["name"], end["status"], end["heavy"]) == (name, 0, [])
        assert end["said"][0].startswith("usage: ")


def test_a_flag_that_no_command_has_is_refused_as_soon():
    for end in ran(SUBCOMMAND, *((each.name, ["--no-such-flag"]) for each in SUBCOMMANDS)):
        assert (end["status"], end["heavy"]) == (2, []), end


def test_options_that_are_wrong_in_themselves_are_refused_as_soon():
    for end in ran(SUBCOMMAND, *((name, line) for name in REFUSED for line in REFUSED[name])):
        assert (end["status"], end["heavy"]) == (2, []), end
        assert end["said"][1].startswith("error: ")


def test_the_work_imports_what_it_takes():
    """What the tests above look for is found where it is."""
    (end,) = ran(SUBCOMMAND, ("seeds", ["--report", "a.json", "b.json", "--output", "setup.cfg"]))
    assert end["status"] == 2
    assert "scipy" in end["heavy"]
