"""Where the results of a rule's command go, and how each is written there: one a setting."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import RenderableType

from compress.budget import Constraint
from compress.command import check_output, console, finished_directory


@dataclass(frozen=True)
class Said:
    """What a command says of a result: notes for its reader, then tables and lines."""

    notes: Sequence[str]
    summary: Sequence[RenderableType]


def result_directories(
    settings: Sequence[Constraint], name: str, output: Path | None
) -> dict[Constraint, Path]:
    """The directory that each setting's result is written into.

    Args:
        settings: what the command was asked for.
        name: what a result is called in `results/`, before its setting, if there is no `output`.
        output: the result's directory, or that of several results.
    """
    if output is None:
        return {each: Path("results") / f"{name}-{each.slug}" for each in settings}
    if len(set(settings)) == 1:
        return dict.fromkeys(settings, output)
    return {each: output / each.slug for each in settings}


def check_outputs(directories: Mapping[Constraint, Path], overwrite: bool) -> None:
    """Raise `UserError` if one of the directories is in use and not to be overwritten."""
    for each in directories.values():
        check_output(each, overwrite)


def write_results(
    directories: Mapping[Constraint, Path],
    overwrite: bool,
    unreadable: Iterable[str],
    make: Callable[[Constraint, Path], Said],
) -> None:
    """Make the results one after the other, so that an earlier one stays if a later one fails.

    Args:
        directories: of each setting.
        overwrite: whether a directory that holds a result already is replaced.
        unreadable: names of calibration images that were left out.
        make: writes a setting's result into a directory.
    """
    if names := ", ".join(unreadable):
        console().print(f"skipped, because they can't be read: {names}")
    for setting, place in directories.items():
        with finished_directory(place, overwrite) as directory:
            said = make(setting, directory)
        for note in said.notes:
            console().print(f"note: {note}")
        for each in said.summary:
            console().print(each)
        console().print(f"wrote {place}", soft_wrap=True)
