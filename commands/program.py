"""How the user started the running command: what its help calls it."""

import sys

PROGRAM = "clip-cascade"


def program_name(module: str) -> str:
    """`clip-cascade NAME` if the command was started so, and `python -m MODULE` otherwise.

    Args:
        module: the command's module.
    """
    started = sys.argv[0]
    return started if started.startswith(f"{PROGRAM} ") else f"python -m {module}"
