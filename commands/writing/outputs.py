"""Where results are written: complete or not at all, and never over anything else.

A result is made in a hidden directory beside its final path and renamed when it is finished. If
several runs finish for the same path, the first one gets it; the result of a later one is kept
under a name beside it. The next run that writes there cleans up after a killed run.
"""

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from commands.errors import UsageError
from commands.inputs import Input
from commands.interrupts import raise_pending, shielded
from commands.writing.belongings import mark, why_not_replaced
from commands.writing.places import check_writable, make_parents, remove_empty, umask
from commands.writing.renaming import exchange, rename_into_empty_place
from commands.writing.unfinished import Unfinished, put_in_order


def check_output(
    path: Path, overwrite: bool, inputs: tuple[Input, ...] = (), carried: Collection[str] = ()
) -> Path:
    """Check that a result can be written to `path`; the real path, if that is a symbolic link.

    Cleans up first after runs that were killed there.

    Raises:
        UsageError: the path is in use and must not be overwritten, overlaps an input, or can't be
            written to.
    """
    try:
        place = path.resolve()
        if not place.name:
            raise UsageError(f"{path} is the root of the file system: choose another --output")
        put_in_order(place.parent)
        used = os.path.lexists(place)
        if used and not overwrite:
            raise UsageError(f"{path} exists already: choose another --output or pass --overwrite")
        _check_inputs(path, place, inputs)
        if used and (problem := why_not_replaced(place, carried)):
            raise UsageError(problem)
        check_writable(path, place)
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, before Python 3.13
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot write to {path}: {reason}") from error
    return place


def _check_inputs(path: Path, place: Path, inputs: tuple[Input, ...]) -> None:
    for source in inputs:
        real = source.path.resolve()
        named = f"{source.flag} {source.path}"
        if place == real:
            raise UsageError(f"{path} is {named}, which is read: choose another --output")
        if place in real.parents:
            raise UsageError(f"{path} holds {named}, which is read: choose another --output")
        if source.checkpoint and real in place.parents:
            raise UsageError(f"{path} lies inside {named}, which is read: choose another --output")


@contextmanager
def finished_directory(
    path: Path, overwrite: bool, inputs: tuple[Input, ...] = (), carried: Collection[str] = ()
) -> Iterator[Path]:
    """A directory to write a result into, which becomes `path` when the context ends well.

    Enter it before the work starts, so that a path in use is refused early. If the work fails or is
    interrupted, nothing is left behind, and whatever was at `path` stays.

    Args:
        path: where the result goes.
        overwrite: whether to replace an earlier result there.
        inputs: what the command reads; nothing is ever written there.
        carried: files of an earlier result that the command copies into the new one.

    Raises:
        UsageError: as `check_output`; or another run finished first, and this run's result was
            kept under another name.
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
    """Give a directory and its contents the permissions of new files; the directory comes last."""
    withheld = umask()
    for parent, _, files in os.walk(directory, topdown=False):
        for name in files:
            if not (Path(parent) / name).is_symlink():
                (Path(parent) / name).chmod(0o666 & ~withheld)
        Path(parent).chmod(0o777 & ~withheld)


def _put_in_place(
    finished: Path, path: Path, place: Path, overwrite: bool, carried: Collection[str]
) -> None:
    """Rename a finished result to its path, or to a name beside it if that isn't allowed."""
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
    """Replace an earlier result; False if that has changed in the meantime."""
    replaced = finished.with_suffix(".replaced")
    try:
        if exchange(finished, place):
            return (
                True  # the earlier result now has the unfinished one's name, and is removed with it
            )
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
