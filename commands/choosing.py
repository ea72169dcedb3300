"""Choosing a sub-command of `clip-cascade`: the list of them, and the module that is run.

A command is imported only when it is chosen.
"""

import runpy
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib.metadata import version

from commands.lasting import lasting_output
from commands.program import PROGRAM, run_as_subcommand
from commands.subcommands import GROUPS, SUBCOMMANDS

_USAGE_ERROR = 2


def run_subcommand(line: Sequence[str]) -> None:
    """Run the sub-command that a command line starts with; without one, list them.

    Raises:
        SystemExit: there is no such sub-command (status 2), or it ends so.
    """
    name, *arguments = line or ["--help"]
    modules = {command.name: command.module for command in SUBCOMMANDS}
    if name in modules:
        run_as_subcommand(name)
        sys.argv[1:] = arguments
        runpy.run_module(modules[name], run_name="__main__", alter_sys=True)
        return
    with lasting_output():
        if name in ("-h", "--help"):
            print(_help())
        elif name == "--version":
            print(f"{PROGRAM} {version(PROGRAM)}")
        else:
            print(f"error: {_unknown(name, modules)}", file=sys.stderr)
            sys.exit(_USAGE_ERROR)


def _unknown(name: str, modules: dict[str, str]) -> str:
    """What to say of a name that no sub-command has; users may know a command by its module."""
    names = {spelling: known for known, module in modules.items() for spelling in (known, module)}
    near = get_close_matches(name.lower(), names, n=1)
    hint = f"did you mean {names[near[0]]}?" if near else f"{PROGRAM} --help lists the commands"
    return f"{PROGRAM} has no command {name!r}; {hint}"


def _help() -> str:
    width = max(len(command.name) for command in SUBCOMMANDS)
    lines = [
        f"usage: {PROGRAM} COMMAND [OPTIONS]",
        "",
        "Make a cheap first stage out of a CLIP tower and search with it in front of the full one.",
    ]
    for group, purpose in GROUPS.items():
        lines += ["", f"{group}: {purpose}"]
        for command in SUBCOMMANDS:
            if command.group == group:
                lines.append(f"  {command.name:{width}}  {command.summary}")
    return "\n".join(
        [*lines, "", f"{PROGRAM} COMMAND --help shows a command's options and an example."]
    )
