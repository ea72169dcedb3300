"""What a command reads, so that nothing is ever written over it."""

from dataclasses import dataclass
from pathlib import Path
from typing import get_type_hints

from commands.flags import ConfigOption, Reads, flag_of, marks_of


@dataclass(frozen=True)
class Input:
    """What a command reads, and by which flag it was named.

    Nothing is written into a checkpoint; beside the images of a corpus, or a report, it may be.
    """

    flag: str
    path: Path
    checkpoint: bool = False


def inputs_of(options: ConfigOption) -> tuple[Input, ...]:
    """What options name that is read, as far as it is on this machine's disk."""
    found = []
    for name, hint in get_type_hints(type(options), include_extras=True).items():
        for mark in marks_of(hint, Reads):
            value = getattr(options, name)
            for each in value if isinstance(value, tuple) else (value,):
                if each is not None and Path(each).exists():
                    found.append(Input(flag_of(name), Path(each), mark.checkpoint))
    return tuple(found)
