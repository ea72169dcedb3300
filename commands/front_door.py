"""`clip-cascade`: every command of the project under one name.

    clip-cascade recover --mac-constraint 0.5

does what `python -m compress.recover --mac-constraint 0.5` does.
"""

import sys

from commands.interrupts import end_at_once


def main() -> None:
    """Run the sub-command that this process's command line names."""
    end_at_once()  # before anything else is imported, which may take seconds

    from commands.choosing import run_subcommand

    run_subcommand(sys.argv[1:])
