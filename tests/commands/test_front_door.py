"""`clip-cascade` knows every command, answers at once, and is interrupted in one line."""

import ast
import configparser
import os
import random
import re
import signal
import subprocess
import sys
import time
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from commands.choosing import run_subcommand
from commands.subcommands import GROUPS, SUBCOMMANDS
from compress.recover import RecoverOptions
from tests.commands.test_flags import of
from tests.lanes import sweep
from tests.structure import packages

ROOT = Path(__file__).resolve().parents[2]
START = "from commands.front_door import main; main()"
HEED = "import signal; [signal.signal(each, signal.SIG_DFL) for each in (1, 2)]"
"""Signals as a shell in the foreground sets them: what starts the tests may ignore some."""
HEAVY = ("torch", "transformers", "datasets", "safetensors", "corpora", "scipy", "matplotlib")


def clip_cascade(*line: str, code: str = START) -> subprocess.CompletedProcess:
    """What `clip-cascade` says in a process of its own."""
    return subprocess.run(
        [sys.executable, "-X", "utf8", "-c", code, *line],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )


def words(text: str) -> list[str]:
    """What a help text says, without its frame, which depends on where it is shown."""
    return re.sub("[│╭╮╰╯─]|-{9,}", " ", text).split()


def main_block(path: Path) -> ast.Call | None:
    """The call that a module's `__main__` block ends with, if it has one."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.If) and "__main__" in ast.unparse(node.test):
            return node.body[-1].value
    return None


@cache
def command_modules() -> dict[str, Path]:
    """The modules of the distribution's packages that are commands."""
    files = [file for package in packages(ROOT) for file in (ROOT / package).rglob("*.py")]
    return {
        ".".join(file.relative_to(ROOT).with_suffix("").parts): file
        for file in files
        if main_block(file)
    }


# -- the table


def test_every_command_is_a_sub_command_and_the_other_way_round():
    assert sorted(command.module for command in SUBCOMMANDS) == sorted(command_modules())
    assert len({command.name for command in SUBCOMMANDS}) == len(SUBCOMMANDS)
    assert {command.group for command in SUBCOMMANDS} == set(GROUPS)


@pytest.mark.parametrize("command", SUBCOMMANDS, ids=lambda command: command.name)
def test_a_summary_is_the_first_line_of_the_commands_own_help(command):
    path = command_modules()[command.module]
    _, options, module = main_block(path).args
    classes = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)]
    (described,) = [ast.get_docstring(node) for node in classes if node.name == options.id]
    assert command.summary == described.splitlines()[0]
    assert module.value == command.module


def test_the_console_script_is_this_function():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    script = config["options.entry_points"]["console_scripts"].strip()
    assert script == "clip-cascade = commands.front_door:main"
    assert callable(import_module("commands.front_door").main)


# -- what it says


def test_help_lists_every_command_and_imports_none_of_them():
    code = f"{START}\nimport sys; print(*(each for each in {HEAVY} if each in sys.modules))"
    said = clip_cascade("--help", code=code)
    lines = said.stdout.splitlines()
    for command in SUBCOMMANDS:
        (line,) = [line for line in lines if line.split()[:1] == [command.name]]
        assert line.endswith(command.summary)
    assert lines[-1] == ""  # nothing heavy
    assert clip_cascade().stdout == "\n".join(lines[:-1]) + "\n"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("recovr", "did you mean recover?"),
        ("compress.fisher", "did you mean fisher?"),
        ("early_exit", "did you mean early-exit?"),
        ("evaluation.cascade", "did you mean experiment?"),
        ("zzz\n", "clip-cascade --help lists the commands"),
    ],
)
def test_a_wrong_name_is_refused_and_the_nearest_suggested(capsys, name, meant):
    with pytest.raises(SystemExit) as ending:
        run_subcommand([name])
    assert ending.value.code == 2
    said = capsys.readouterr().err
    assert said == f"error: clip-cascade has no command {name!r}; {meant}\n"


def test_the_help_of_a_command_is_the_same_by_both_ways_but_for_the_programs_name(
    capsys,
):
    with pytest.raises(SystemExit):
        of("compress.recover", "--help")
    by_module = capsys.readouterr().out
    by_name = clip_cascade("recover", "--help").stdout
    assert by_module.startswith("usage: python -m compress.recover ")
    assert by_name.startswith("usage: clip-cascade recover ")
    assert "Example: clip-cascade recover --mac-constraint 0.5" in by_name
    assert words(by_name) == words(
        by_module.replace("python -m compress.recover", "clip-cascade recover")
    )
    assert RecoverOptions.__doc__.splitlines()[0] in by_name


# -- what it does


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")  # other tests import the command
def test_a_sub_command_does_what_its_module_does(clip_directory, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", [*sys.argv])  # a sub-command changes both
    monkeypatch.setattr("commands.program._subcommand", None)
    data = ["--corpus", "folder", "--corpus-dir", str(folder), "--model", str(clip_directory)]
    line = [*data, "--samples", "8", "--output", str(tmp_path / "out"), "--align", "none"]
    run_subcommand(["flip", "--mask", "0.5", *line])
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_what_a_user_can_mend_is_one_line():
    said = clip_cascade("recover", "--mac-constraint", "2")
    assert said.returncode == 2
    assert said.stderr == "error: --mac-constraint must be in (0, 1], found 2.0\n"


# -- interrupts


def answers(process: subprocess.Popen) -> bool:
    """Whether a process catches SIGTERM, as Python does not by itself."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    (caught,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")]
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.skipif(sys.platform != "linux", reason="signals as Linux shows them")
@pytest.mark.parametrize("moment", sweep(range(5), [0, 1]))
def test_an_interrupt_at_any_moment_is_one_line_and_130(moment, tmp_path):
    dice = random.Random(moment)
    process = subprocess.Popen(
        [sys.executable, "-c", f"{HEED}; {START}", "recover", "--output", str(tmp_path / "out")],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while not answers(process):
            time.sleep(0.002)
        time.sleep(dice.uniform(0, 0.3) if moment == 0 else dice.uniform(0, 4))
        process.send_signal(dice.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP]))
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    assert said.splitlines()[-1] == "interrupted: no unfinished result was left behind"
    assert "Traceback" not in said
    assert not os.listdir(tmp_path)


def test_commands_own_modules_import_nothing_heavy():
    names = sorted(file.stem for file in (ROOT / "commands").glob("*.py") if file.stem[0] != "_")
    code = "".join(f"import commands.{name}\n" for name in names)
    said = clip_cascade(code=f"{code}import sys\nprint([m for m in {HEAVY} if m in sys.modules])")
    assert said.stdout == "[]\n", said.stderr
