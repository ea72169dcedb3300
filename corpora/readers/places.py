"""From the places that a person names to files: directories, single files, patterns of paths.

For whoever wants to look at some of a person's photographs. An index of all of them, which goes on
while it is looked for and reads archives and data sets too, is `cascade.photos`.
"""

import os
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from corpora.problems import CorpusError
from corpora.readers.patterns import MAGIC, Glob
from corpora.readers.walking import look


@dataclass(frozen=True)
class Sample:
    """Some of the photographs at some places.

    Attributes:
        files: those that were drawn, by their absolute paths, in order.
        among: how many there are.
    """

    files: tuple[str, ...]
    among: int


def sample_of(names: Iterable[str], count: int, seed: int) -> Sample:
    """Draw photographs at places, each as likely as any other, with a generator seeded by `seed`.

    Args:
        names: directories, which are looked through however deep, files, or patterns of paths.
        count: how many; all, if there are no more.
        seed: which; the same files give the same sample.

    Raises:
        CorpusError: a name is none of these, or there is no photograph.
    """
    names = tuple(names)
    found = sorted({path for name in names for path in _at(name)})
    if not found:
        raise CorpusError(f"{', '.join(names)}: no photographs there")
    drawn = random.Random(seed).sample(found, min(count, len(found)))
    return Sample(tuple(sorted(drawn)), len(found))


def _at(name: str) -> list[str]:
    path = os.path.abspath(os.path.expanduser(name))
    if os.path.isdir(path):
        return _inside(path)
    if os.path.lexists(path):
        return [path]
    if MAGIC.search(name):
        glob = Glob.of(path)
        if os.path.isdir(glob.root):
            return _inside(glob.root, glob)
        raise CorpusError(f"{name}: there is no directory {glob.root}")
    raise CorpusError(
        f"{name}: there is no such file or directory; name directories, files, or patterns as "
        "'DIR/*.jpg'"
    )


def _inside(directory: str, glob: Glob | None = None) -> list[str]:
    """The photographs in a directory and those below, or those that a pattern means."""
    wanted = glob.enter if glob else lambda _: True
    return [
        os.path.join(directory, entry.name)
        for entry in look(Path(directory), wanted, any_name=True)
        if entry.ignored is None and (glob is None or glob.take(entry.name))
    ]
