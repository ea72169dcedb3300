"""Whether embeddings fit in memory, and so whether they are searched there."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypeAlias

Index: TypeAlias = Literal["auto", "exact", "ivf"]
"""How the first stage is searched: all of it in memory, by an inverted file, or as it fits."""
INDEXES = ("auto", "exact", "ivf")
SHARE = 0.5
"""Of the memory that is available: what embeddings may take to be searched in memory."""

_MEMINFO = Path("/proc/meminfo")
_OWN_GROUPS = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")
_UNLIMITED = 1 << 60


def fits(nbytes: int, held: int = 0) -> bool:
    """Whether so many bytes of embeddings may be held.

    Args:
        nbytes: of embeddings.
        held: how many of them are in memory already.
    """
    return nbytes <= SHARE * (available_memory() + held)


def available_memory() -> int:
    """Bytes that this process may still take: of the machine, and of its control groups."""
    return min(_of_machine(), *_of_groups(), _UNLIMITED)


def _of_machine() -> int:
    try:
        for line in _MEMINFO.read_text().splitlines():
            name, _, rest = line.partition(":")
            if name == "MemAvailable":
                return int(rest.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:  # a system without it, such as macOS: what is in use isn't known
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return _UNLIMITED


def _of_groups() -> Iterator[int]:
    """What each control group around this process, of version 1 or 2, leaves to it."""
    try:
        lines = _OWN_GROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            root, limit, usage, cache = _GROUPS, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            root, limit = _GROUPS / "memory", "memory.limit_in_bytes"
            usage, cache = "memory.usage_in_bytes", "total_inactive_file"
        else:
            continue
        yield from _left(root, path, limit, usage, cache)


def _left(root: Path, path: str, limit: str, usage: str, cache: str) -> Iterator[int]:
    """What a control group and those around it leave; inside a container it is the root."""
    inner = root / path.lstrip("/")
    for group in [inner, *inner.parents]:
        if not group.is_relative_to(root):
            return
        try:
            most = (group / limit).read_text().strip()
            if most == "max" or int(most) >= _UNLIMITED:
                continue
            used = int((group / usage).read_text())
            yield max(0, int(most) - used + _reclaimable(group, cache))
        except (OSError, ValueError):
            continue


def _reclaimable(group: Path, name: str) -> int:
    """Bytes of files that a group holds in memory and that go where something else needs it."""
    for line in (group / "memory.stat").read_text().splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0
