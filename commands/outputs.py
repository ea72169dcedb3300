"""Where results are written: whole or not at all, and over nothing that isn't theirs.

A result is made in a hidden directory beside its place and renamed into it when it is finished. Of
several runs that finish for one place the first has it; the result of a later one is kept beside
it. What a killed run left behind is put in order by the next one that writes beside it.
"""

import os
import re
import secrets
import shutil
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from commands.belongings import add, mark, why_not_replaced
from commands.errors import UsageError
from commands.interrupts import raise_pending, shielded
from commands.renaming import exchange, rename_into_empty_place
from commands.screen import printable

try:
    import fcntl
except ImportError:  # no such locks on this system: nobody can tell what is left behind
    fcntl = None

_LEFT = re.compile(r"\.(?P<name>.+)\.(?P<token>[0-9a-f]{8}|[0-9a-f]{12})\.(partial|replaced)")
"""Names of unfinished results and of replaced ones; tokens of 8 digits come without a lock."""
_TRIES = 3
"""Times that a lock is tried for, before the file system is taken to have none."""
_ROOM = 64
"""Characters that names in a result's directory need after its own."""


@dataclass(frozen=True)
class Input:
    """What a command reads, and by which flag it was named.

    Nothing is written into a checkpoint; beside the images of a corpus, or a report, it may be.
    """

    flag: str
    path: Path
    checkpoint: bool = False


@dataclass(frozen=True)
class _Unfinished:
    """A directory that a result is made in, locked as long as its run lives."""

    directory: Path
    lock: int | None

    @classmethod
    def beside(cls, place: Path) -> "_Unfinished":
        """Make one, for this user alone until it is finished."""
        for _ in range(_TRIES):
            directory = place.with_name(f".{place.name}.{secrets.token_hex(6)}.partial")
            directory.mkdir(mode=0o700)
            lock = _locked(directory)
            if lock is not None and directory.exists():
                break  # else another run took it for left behind before it was locked
            if lock is not None:
                os.close(lock)
        made = cls(directory, lock)
        _unfinished.append(made)
        return made

    def discard(self) -> bool:
        """Remove what is left of it; whether nothing is."""
        shutil.rmtree(self.directory, ignore_errors=True)
        gone = not os.path.lexists(self.directory)
        if self in _unfinished and gone:
            _unfinished.remove(self)
            if self.lock is not None:
                os.close(self.lock)
        return gone


_unfinished: list[_Unfinished] = []
"""Those of this process."""


def umask() -> int:
    """The permissions that this process's user withholds from new files."""
    current = os.umask(0o077)
    os.umask(current)
    return current


def discard_unfinished() -> list[Path]:
    """Remove what unfinished results there still are; those that can't be removed."""
    with shielded():
        return [each.directory for each in list(_unfinished) if not each.discard()]


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
        _check_writable(path, place)
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


def _check_writable(path: Path, place: Path) -> None:
    """Raise `UsageError` if a result can't be made at `place`, as far as that can be known."""
    above = next(each for each in place.parents if os.path.lexists(each))
    if not above.is_dir():
        raise UsageError(f"cannot write to {path}: {above} is no directory")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write to {path}: {above} may not be written to")
    missing = place.relative_to(above).parts
    longest = max(len(os.fsencode(each)) for each in missing) + len(f"..{'0' * 12}.partial")
    whole = len(os.fsencode(place)) + _ROOM
    if longest > os.pathconf(above, "PC_NAME_MAX") or whole > os.pathconf(above, "PC_PATH_MAX"):
        raise UsageError(f"cannot write to {path}: the name is too long")


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
        made = _make_parents(path, place.parent)
        try:
            unfinished = _Unfinished.beside(place)
        except OSError as error:
            _remove_empty(made)
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
            _remove_empty(made)


def _make_parents(path: Path, parent: Path) -> list[Path]:
    """Make the directories above a result; those that weren't there, the lowest first."""
    missing = [each for each in (parent, *parent.parents) if not each.exists()]
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write to {path}: {error.strerror}") from error
    return missing


def _remove_empty(directories: list[Path]) -> None:
    for each in directories:
        with suppress(OSError):  # something is in it
            each.rmdir()


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


def check_files(directory: Path, names: Iterable[str], overwrite: bool) -> None:
    """Raise `UsageError` if files in a directory can't be, or must not be, written."""
    try:
        put_in_order(directory)
        for name in names:
            path = directory / name
            if os.path.lexists(path) and not overwrite:
                raise UsageError(
                    f"{path} exists already: name another --output or pass --overwrite"
                )
            if path.is_dir():
                raise UsageError(f"{path} is a directory: name another --output")
            _check_writable(directory, path.resolve())
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot write to {directory}: {reason}") from error


def write_files(directory: Path, contents: Mapping[str, bytes], overwrite: bool) -> list[Path]:
    """Write files into a directory, made if need be: all of them, each whole, or none.

    Raises:
        UsageError: one is there already and not to be overwritten, or can't be written.
    """
    try:
        return _write_files(directory, contents, overwrite)
    except OSError as error:
        raise UsageError(f"cannot write to {directory}: {error.strerror}") from error


def _write_files(directory: Path, contents: Mapping[str, bytes], overwrite: bool) -> list[Path]:
    token = secrets.token_hex(6)
    with shielded():
        made = _make_parents(directory, directory)
        partial = {name: directory / f".{name}.{token}.partial" for name in contents}
        locks = []
        try:
            for name, content in contents.items():
                partial[name].touch(exist_ok=False)
                locks.append(_locked(partial[name]))
                partial[name].write_bytes(content)
            placed: list[Path] = []
            for name, written in partial.items():
                _place_file(written, (directory / name).resolve(), overwrite, placed)
            add(directory, contents)
        finally:
            for written in partial.values():
                written.unlink(missing_ok=True)
            for lock in locks:
                if lock is not None:
                    os.close(lock)
            _remove_empty(made)
    raise_pending()
    return [directory / name for name in contents]


def _place_file(written: Path, place: Path, overwrite: bool, placed: list[Path]) -> None:
    """Rename a file into its place; if another run's is there, take back what was placed."""
    try:
        if overwrite:
            written.replace(place)
        else:
            rename_into_empty_place(written, place)
            placed.append(place)
    except FileExistsError as error:
        for each in placed:
            each.unlink(missing_ok=True)
        raise UsageError(
            f"another run wrote {place} first: name another --output or pass --overwrite"
        ) from error


def put_in_order(parent: Path) -> None:
    """Remove what killed runs left in a directory, and put back what they took away.

    A run holds a lock on its unfinished result as long as it lives. What can't be told to be left
    behind, or can't be removed, is named.
    """
    try:
        found = sorted(each for each in parent.iterdir() if _LEFT.fullmatch(each.name))
    except OSError:  # not there, or not to be read: nothing to put in order
        return
    for each in found:
        match = _LEFT.fullmatch(each.name)
        if each.is_symlink() or each.stat().st_uid != os.geteuid():
            continue
        lock = _locked(each) if len(match["token"]) == 12 else None
        if lock is not None:
            with shielded():
                _settle(each, parent / match["name"])
                os.close(lock)
        elif len(match["token"]) == 8:
            _say(f"{each} was left behind by a run that was cut off: delete it")


def _settle(left: Path, place: Path) -> None:
    """Put a result that was being replaced back if nothing is in its place; else remove it."""
    if left.suffix == ".replaced":
        with suppress(OSError):
            place.rmdir()  # empty: where no system exchanges in one step, a place is claimed so
        with suppress(OSError):
            rename_into_empty_place(left, place)
            _say(f"put {place} back, which a run that was cut off had taken away")
            return
    if left.is_dir():
        shutil.rmtree(left, ignore_errors=True)
    else:
        left.unlink(missing_ok=True)
    gone = "removed" if not os.path.lexists(left) else "can't remove"
    _say(f"{gone} {left}, which a run that was cut off had left behind")


def _locked(path: Path) -> int | None:
    """A lock on a directory or file that nobody else holds, until it is closed; None if none."""
    if fcntl is None:
        return None
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def _say(text: str) -> None:
    print(f"note: {printable(text)}", file=sys.stderr)
