"""What can be wrong with a corpus, and how the user hears of it.

One error for what ends a load (`CorpusError`, a single line that a command can print as it is) and
one warning for what is left out and passed over (`CorpusWarning`): malformed lines, missing images,
files of other kinds, copies of a picture.
"""

import warnings
from pathlib import Path

SHOWN = 10


class CorpusError(ValueError):
    """A corpus that can't be used; one line: what was found, what was expected, what to do."""


class CorpusWarning(UserWarning):
    """Part of a corpus was left out: a malformed line, an image that isn't there."""


class Problems:
    """Collects what is left out of a corpus and warns of it when the `with` block ends.

    The first ten problems get a line each, the others a count. The warnings come even if the load
    ends in an error, since they say why nothing was left.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.missing = 0
        self._summaries: list[str] = []

    def add(self, file: Path | str, line: int | None, what: str) -> None:
        """Note that a line of a file (or, without a number, something else in it) is unusable."""
        where = f"{file}:{line}" if line is not None else f"{file}"
        self.lines.append(f"{where}: {what}")

    def say(self, summary: str) -> None:
        """Note something about the corpus as a whole."""
        self._summaries.append(summary)

    def say_shared(self, shared: int, first: str) -> None:
        """Note how many pictures the publisher has in train and in a held-out split, if any."""
        if shared:
            self.say(
                f"{shared:,} images of train are held out in another split too and are left out of "
                f"train (first: {first})"
            )

    def count_missing(self, missing: int, listed: int, first: Path) -> None:
        """Note how many of the listed images aren't on disk, and the first of them."""
        self.missing = missing
        self.say(
            f"{missing:,} of {listed:,} images that the captions name aren't on disk, "
            f"skipped (first: {first})"
        )

    def __enter__(self) -> "Problems":
        return self

    def __exit__(self, *_: object) -> None:
        shown = self.lines[:SHOWN]
        if len(self.lines) > SHOWN:
            shown.append(f"… and {len(self.lines) - SHOWN:,} more like these")
        for text in shown + self._summaries:
            # 3: the caller of the function that holds the `with` block, that is, of load_corpus
            warnings.warn(text, CorpusWarning, stacklevel=3)
