"""How the user started the running command: what its help calls it."""

PROGRAM = "clip-cascade"

_subcommand: str | None = None
"""The sub-command of this process; None if a module was run."""


def run_as_subcommand(name: str) -> None:
    """Record that this process runs a sub-command of `clip-cascade`."""
    global _subcommand
    _subcommand = name


def program_name(module: str) -> str:
    """`clip-cascade NAME` if the command was started so, and `python -m MODULE` otherwise.

    Args:
        module: the command's module.
    """
    return f"{PROGRAM} {_subcommand}" if _subcommand else f"python -m {module}"
