"""Which images of a corpus are for calibration and training, and which are held out.

The names are train, validation and test. A publisher's own split is used where there is one; else
a hash of the key decides, so that the same image is on the same side on every machine.
"""

import hashlib
import re
from collections.abc import Collection, Iterable

from corpora.problems import CorpusError

SPLITS = ("train", "validation", "test")
HELD_OUT = 1000

# What publishers call them. Karpathy's restval is what the field trains on beside train.
SYNONYMS = {
    "train": ("train", "training", "restval"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}


def split_name(published: object) -> str | None:
    """Our name for a publisher's ("val2017", "dev", "restval"), or None if it isn't a split."""
    if not isinstance(published, str):
        return None
    bare = re.sub(r"[_-]?\d*$", "", published.strip().lower())
    return next((name for name, synonyms in SYNONYMS.items() if bare in synonyms), None)


def checked(split: str | None) -> str:
    """The split asked for, validation if none was; raises CorpusError on an unknown name."""
    if split is not None and split not in SPLITS:
        raise CorpusError(f"no split is called {split!r}; choose one of {', '.join(SPLITS)}")
    return split or "validation"


def resolve(split: str, available: Collection[str], where: object) -> str:
    """The split to read: the one asked for, or the other held-out one if there is just that.

    Raises CorpusError if neither is available.
    """
    other = {"validation": "test", "test": "validation"}.get(split, split)
    for name in (split, other):
        if name in available:
            return name
    found = ", ".join(name for name in SPLITS if name in available) or "none"
    raise CorpusError(f"{where}: has no {split} split (found: {found}); add it or choose another")


def hashed(keys: Iterable[str], split: str) -> list[str]:
    """The keys of one split of a corpus whose publisher gives none, in their given order.

    The 1,000 keys whose SHA-256 is lowest, a fifth of them if there are fewer than 5,000, are held
    out: they are both validation and test; all others are train. Pass the keys that the publisher
    lists, not those on disk, or a missing image moves others across.
    """
    keys = list(dict.fromkeys(keys))
    ranked = sorted(keys, key=lambda key: hashlib.sha256(key.encode()).digest())
    held_out = set(ranked[: min(HELD_OUT, max(1, len(keys) // 5))])
    return [key for key in keys if (key in held_out) != (split == "train")]
