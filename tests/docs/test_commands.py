"""Every command line that the pages, the configurations and the modules show is one that parses."""

import ast
import importlib
import importlib.util
import re
from functools import cache
from pathlib import Path

import pytest

from commands.flags import ConfigOption
from commands.parsing import parse
from tests.docs.markdown import ROOT, blocks, commands, inline_commands, name, pages

PACKAGES = ("cascade", "compress", "evaluation", "figures", "demo")
VARIABLES = {
    variable: variable.lower()
    for variable in ("COCO", "FLICKR30K", "FLICKR8K", "CLIP_PHOTOS", "PHOTOS200")
}
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
CONFIGS = sorted((ROOT / "configs").glob("*.toml"))
_LINE = re.compile(r"^[# ]*(?:Example: )?(?P<command>python -m .+(?:\\\n.*)*)$", re.MULTILINE)


def shown_in(path: Path) -> list[str]:
    """The command lines of a configuration's comments or a module's docstrings."""
    text = path.read_text()
    if path.suffix == ".py":
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
        documented = [node for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]
        text = "\n".join(filter(None, map(ast.get_docstring, documented)))
    return [found["command"].replace("\n#", "\n") for found in _LINE.finditer(text)]


@cache
def options_of(module: str) -> type[ConfigOption]:
    """The options that a command runs with, as the last lines of its module say."""
    tree = ast.parse(Path(importlib.util.find_spec(module).origin).read_text())
    (call,) = (
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "run_command"
    )
    return getattr(importlib.import_module(module), call.args[1].id)


def check(lines: list[list[str]], place: str) -> list[str]:
    """Parse each command of this project, and give the modules that they run."""
    parsed = []
    for command, *arguments in lines:
        if command == "make":
            assert set(arguments) <= targets(), f"{place} shows make {' '.join(arguments)}"
        elif arguments[:1] == ["-m"] and arguments[1].split(".")[0] in PACKAGES:
            try:
                parse(options_of(arguments[1]), arguments[1], arguments[2:])
            except (Exception, SystemExit) as error:
                raise AssertionError(f"{place}: {' '.join(arguments)}: {error}") from error
            parsed.append(arguments[1])
    return parsed


@cache
def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("page", pages(), ids=name)
def test_command_lines_of_a_page_parse(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    scripts = [block.text for block in blocks(page, "sh")] + inline_commands(page.read_text())
    for script in scripts:
        check(commands(script, VARIABLES), name(page))


@pytest.mark.parametrize("path", list(filter(shown_in, MODULES + CONFIGS)), ids=name)
def test_command_lines_of_a_module_or_configuration_parse(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    for script in shown_in(path):
        assert check(commands(script, VARIABLES), name(path))


def test_the_shell_expands_what_a_reader_would_type():
    script = "for s in 0 1; do\n  python -m a.b \\\n    --x $COCO/{c,d} --seed $s\ndone\nrm -rf /"
    expected = [["python", "-m", "a.b", "--x", "coco/c", "coco/d", "--seed", s] for s in "01"]
    assert commands(script, VARIABLES) == expected


def test_a_line_that_does_not_parse_is_found():
    with pytest.raises(AssertionError, match=r"compress\.fisher --mac-constraint 2"):
        check(commands("python -m compress.fisher --mac-constraint 2", {}), "a page")
    with pytest.raises(AssertionError, match="shows make coffee"):
        check(commands("make coffee", {}), "a page")


def test_one_page_shows_every_command():
    lines = inline_commands((ROOT / "docs" / "commands.md").read_text())
    shown = {
        command[2] for line in lines for command in commands(line, {}) if command[1:2] == ["-m"]
    }
    made = {path for path in MODULES if "__main__" in path.read_text()}
    assert {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in made} <= shown
