"""Where results are written: whole or not at all, and over nothing that isn't theirs.

A result is made in a hidden directory beside its place and renamed into it when it is finished. Of
several runs that finish for one place the first has it; the result of a later one is kept beside
it. What a killed run left behind is put in order by the next one that writes beside it.
"""

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from commands.belongings import mark, why_not_replaced
from commands.errors import UsageError
from commands.inputs import Input
from commands.interrupts import raise_pending, shielded
from commands.places import check_writable, make_parents, remove_empty, umask
from commands.renaming import exchange, rename_into_empty_place
from commands.unfinished import Unfinished, put_in_order


def check_output(
    path: Path, overwrite: bool, inputs: tuple[Input, ...] = (), carried: Collection[str] = ()
) -> Path:
    """Where a result that is asked for at `path` goes: a link's target, if it is one.

    What killed runs left there is put in order first.

    Raises:
        UsageError: it is in use and not to be overwritten, overlaps an input, or can't be written.
    """
    try:
        place = path.resolve()
        if not place.name:
            raise UsageError(f"{path} is the root of the file system: name another --output")
        put_in_order(place.parent)
        used = os.path.lexists(place)
        if used and not overwrite:
            raise UsageError(f"{path} exists already: name another --output or pass --overwrite")
        _check_inputs(path, place, inputs)
        if used and (problem := why_not_replaced(place, carried)):
            raise UsageError(problem)
        check_writable(path, place)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot write to {path}: {reason}") from error
    return place


def _check_inputs(path: Path, place: Path, inputs: tuple[Input, ...]) -> None:
    for each in inputs:
        real = each.path.resolve()
        named = f"{each.flag} {each.path}"
        if place == real:
            raise UsageError(f"{path} is {named}, which is read: name another --output")
        if place in real.parents:
            raise UsageError(f"{path} holds {named}, which is read: name another --output")
        if each.checkpoint and real in place.parents:
            raise UsageError(f"{path} lies inside {named}, which is read: name another --output")


@contextmanager
def finished_directory(
    path: Path, overwrite: bool, inputs: tuple[Input, ...] = (), carried: Collection[str] = ()
) -> Iterator[Path]:
    """A directory to write results into, which becomes `path` when the context ends well.

    Enter it before the work starts, so that a path in use is refused in time. If the work fails or
    is interrupted nothing is left, and what stood at `path` before stays.

    Args:
        path: of the result.
        overwrite: whether an earlier result there is replaced.
        inputs: what the command reads, which is never written to.
        carried: files of an earlier result that the command copies, so that they aren't lost.

    Raises:
        UsageError: as `check_output`; or another run finished first, and where this run's result
        is.
    """
    place = check_output(path, overwrite, inputs, carried)
    with shielded():
        made = make_parents(path, place.parent)
        try:
            unfinished = Unfinished.beside(place)
        except OSError as error:
            remove_empty(made)
            raise UsageError(f"cannot write to {path}: {error.strerror}") from error
    try:  # a signal may come as soon as it is there
        raise_pending()
        yield unfinished.directory
        raise_pending()
        with shielded():
            mark(unfinished.directory)
            _open_up(unfinished.directory)
            _put_in_place(unfinished.directory, path, place, overwrite, carried)
    finally:
        with shielded():
            unfinished.discard()
            remove_empty(made)


def _open_up(directory: Path) -> None:
    """Give all in a directory, and itself last, the permissions that new files have here."""
    withheld = umask()
    for parent, _, files in os.walk(directory, topdown=False):
        for name in files:
            if not (Path(parent) / name).is_symlink():
                (Path(parent) / name).chmod(0o666 & ~withheld)
        Path(parent).chmod(0o777 & ~withheld)


def _put_in_place(
    finished: Path, path: Path, place: Path, overwrite: bool, carried: Collection[str]
) -> None:
    """Rename a finished result into its place, or beside it if it may not go there."""
    problem = None
    while problem is None:
        try:
            rename_into_empty_place(finished, place)
            return
        except FileExistsError:
            problem = f"another run finished {path} first"
        if overwrite:
            problem = why_not_replaced(place, carried)
            if problem is None and _replace(finished, place):
                return
    kept = _keep_beside(finished, path, place)
    raise UsageError(f"{problem}; this run's own result is {kept}")


def _replace(finished: Path, place: Path) -> bool:
    """Put a result in the place of an earlier one; False if that has changed meanwhile."""
    replaced = finished.with_suffix(".replaced")
    try:
        if exchange(finished, place):
            return True  # the earlier one has the unfinished one's name now, and goes with it
        place.rename(replaced)
    except FileNotFoundError:
        return False
    try:
        rename_into_empty_place(finished, place)
        done = True
    except FileExistsError:  # another run's, which came in between
        done = False
    except OSError:
        replaced.rename(place)
        raise
    shutil.rmtree(replaced, ignore_errors=True)
    return done


def _keep_beside(finished: Path, path: Path, place: Path) -> Path:
    number = 2
    while True:
        name = f"{place.name}-{number}"
        try:
            rename_into_empty_place(finished, place.with_name(name))
            return path.with_name(name)
        except FileExistsError:
            number += 1
