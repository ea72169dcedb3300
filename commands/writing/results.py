"""The results of one command that makes several: where each goes, and how it is written there."""

import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rich.console import RenderableType

from commands.errors import UsageError
from commands.inputs import Input
from commands.screen import console, printable
from commands.writing.outputs import check_output, finished_directory


class Setting(Protocol):
    """What one result was asked for: how it is called, in words and in directories."""

    @property
    def label(self) -> str:
        """In words."""

    @property
    def slug(self) -> str:
        """As a part of a path."""


@dataclass(frozen=True)
class Closing:
    """What a command says of a result: notes for its reader, then tables and lines.

    `obsolete` are directories that are removed once the result is in its place.
    """

    notes: Sequence[str]
    summary: Sequence[RenderableType]
    obsolete: Sequence[Path] = ()


def result_directories(
    settings: Sequence[Setting], name: str, output: Path | None
) -> dict[Setting, Path]:
    """The directory that each setting's result is written into.

    Args:
        settings: what the command was asked for.
        name: what a result is called in `results/`, before its setting, if there is no `output`.
        output: the result's directory, or that of several results.
    """
    if output is None:
        return {setting: Path("results") / f"{name}-{setting.slug}" for setting in settings}
    if len(set(settings)) == 1:
        return dict.fromkeys(settings, output)
    return {setting: output / setting.slug for setting in settings}


@dataclass(frozen=True)
class Outputs:
    """The directories that the results of a command are written into, one for each setting.

    `overwrite` says whether one that holds a result already is replaced; `inputs` are what the
    command reads, which is never written to; `mendable` are the errors that one result may fail by.
    """

    directories: Mapping[Setting, Path]
    overwrite: bool
    inputs: tuple[Input, ...]
    mendable: tuple[type[Exception], ...] = ()

    def check(self) -> None:
        """Raise `UsageError` if one of the directories can't be, or must not be, written."""
        settings: dict[Path, Setting] = {}
        for setting, place in self.directories.items():
            other = settings.setdefault(place, setting)
            if other is not setting:
                raise UsageError(
                    f"{other} and {setting} are too close: both would be written into {place}"
                )
            check_output(place, self.overwrite, self.inputs)

    def write(self, unreadable: Iterable[str], make: Callable[[Setting, Path], Closing]) -> None:
        """Make the results one after the other; one that can't be made costs none of the others.

        Args:
            unreadable: names of calibration images that were left out.
            make: writes a setting's result into a directory.

        Raises:
            UsageError: some results can't be made, or another run wrote them first.
        """
        if names := ", ".join(map(printable, unreadable)):
            console().print(f"skipped, because they can't be read: {names}")
        failed: list[str] = []
        failing: tuple[type[Exception], ...] = (UsageError, *self.mendable)
        for setting in self.directories:
            try:
                self._write(setting, make)
            except failing as error:
                if len(self.directories) == 1:
                    raise
                failed.append(setting.label)
                print(f"not made: {setting.label}: {printable(error)}", file=sys.stderr)
        if failed:
            made = len(self.directories) - len(failed)
            raise UsageError(
                f"{', '.join(failed)} could not be made, as said above; the other {made} "
                "of the results are written"
                if made
                else "none of the results could be made, as said above"
            )

    def _write(self, setting: Setting, make: Callable[[Setting, Path], Closing]) -> None:
        place = self.directories[setting]
        with finished_directory(place, self.overwrite, self.inputs) as directory:
            said = make(setting, directory)
        for path in said.obsolete:
            shutil.rmtree(path, ignore_errors=True)
        for note in said.notes:
            console().print(f"note: {note}")
        for line in said.summary:
            console().print(line)
        console().print(f"wrote {printable(place)}", soft_wrap=True)
