"""What a command reads, so that its results never overwrite it."""

from dataclasses import dataclass
from pathlib import Path
from typing import get_type_hints

from commands.flags import ConfigOption, Reads, flag_of, marks_of
from commands.places import place_of


@dataclass(frozen=True)
class Input:
    """Something that a command reads, and the flag that named it.

    Results may go beside the images of a corpus or a report, but never into a checkpoint.
    """

    flag: str
    path: Path
    checkpoint: bool = False


def inputs_of(options: ConfigOption) -> tuple[Input, ...]:
    """The files and directories that options name for reading and that exist on this machine."""
    found = []
    for name, hint in get_type_hints(type(options), include_extras=True).items():
        for mark in marks_of(hint, Reads):
            value = getattr(options, name)
            for path in value if isinstance(value, tuple) else (value,):
                if path is None:
                    continue
                before, place = place_of(path)
                here = Path(place).expanduser() if before else Path(place)
                if here.exists():
                    found.append(Input(flag_of(name), here, mark.checkpoint))
    return tuple(found)
