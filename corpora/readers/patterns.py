"""Which files of a folder are meant: patterns as shells know them, and such to leave out."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import translate
from functools import cached_property

MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Patterns:
    """Files to take and files to leave out, by their paths relative to a folder.

    A pattern without / is compared with the name of the file and of each folder that it lies in,
    one with / with the whole path and those of these folders; * stands for anything. Capitals don't
    matter: cameras write IMG_1.JPG. What is left out is left out even if it is to be taken.

    Attributes:
        include: files to take; all if there is none.
        exclude: files and folders to leave out.
    """

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()

    def enter(self, path: str) -> bool:
        """Whether to look at a file or folder, if those that it lies in are looked at."""
        return not any(pattern.matches(path) for pattern in self._excluded)

    def take(self, path: str) -> bool:
        """Whether to take a file, wherever it lies."""
        ways = _with_folders(path)
        if any(pattern.matches(way) for pattern in self._excluded for way in ways):
            return False
        included = self._included
        return not included or any(pattern.matches(way) for pattern in included for way in ways)

    @cached_property
    def _included(self) -> list["_Pattern"]:
        return [_Pattern.of(pattern) for pattern in self.include]

    @cached_property
    def _excluded(self) -> list["_Pattern"]:
        return [_Pattern.of(pattern) for pattern in self.exclude]


@dataclass(frozen=True)
class _Pattern:
    expression: re.Pattern[str]
    whole: bool

    @classmethod
    def of(cls, pattern: str) -> "_Pattern":
        bare = pattern.removeprefix("./").rstrip("/")
        return cls(re.compile(translate(bare.lower())), "/" in bare)

    def matches(self, path: str) -> bool:
        compared = path if self.whole else path.rpartition("/")[2]
        return self.expression.match(compared.lower()) is not None


@dataclass(frozen=True)
class Glob:
    """A shell's pattern of paths: * and ? within a name, ** for any number of folders.

    Attributes:
        root: the last folder before the first part with a wildcard.
        parts: what follows, part by part.
    """

    root: str
    parts: tuple[str, ...]

    @classmethod
    def of(cls, pattern: str) -> "Glob":
        """Read a pattern with a wildcard in it."""
        parts = pattern.split("/")
        first = next(place for place, part in enumerate(parts) if MAGIC.search(part))
        return cls("/".join(parts[:first]) or ("/" if first else "."), tuple(parts[first:]))

    def enter(self, path: str) -> bool:
        """Whether a path relative to the root may lead to what is meant, or is it."""
        return bool(self._reached(path))

    def take(self, path: str) -> bool:
        """Whether a path relative to the root is meant, or a folder that it lies in."""
        return len(self.parts) in self._reached(path)

    def _reached(self, path: str) -> set[int]:
        """How many parts of the pattern a path may have used up; all: it matches."""
        places = self._past_any({0})
        for name in path.split("/"):
            after = {place for place in places if place == len(self.parts)}
            for place in places - after:
                part = self.parts[place]
                if part == "**":
                    after |= {place, place + 1} if place == len(self.parts) - 1 else {place}
                elif re.match(translate(part), name):
                    after.add(place + 1)
            places = self._past_any(after)
        return places

    def _past_any(self, places: set[int]) -> set[int]:
        """These places, and those behind any `**` that stand there for no folder."""
        found = set(places)
        for place in sorted(places):
            while place < len(self.parts) - 1 and self.parts[place] == "**":
                place += 1
                found.add(place)
        return found


def _with_folders(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]
