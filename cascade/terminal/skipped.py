"""Tables of what was skipped and why: reasons first, files where they are asked for."""

import os
from collections import defaultdict
from collections.abc import Mapping

from rich.table import Table

from commands.screen import printable

_SHOWN = 3


def by_reason(skipped: Mapping[str, str], shown: int = _SHOWN) -> Table:
    """One row for each reason: how many, and the first few of them."""
    reasons: defaultdict[str, list[str]] = defaultdict(list)
    for key, reason in skipped.items():
        reasons[reason].append(key)
    table = Table("skipped", "reason", "files", title=None)
    table.columns[0].justify = "right"
    for reason, keys in sorted(reasons.items(), key=lambda item: -len(item[1])):
        names = [printable(os.path.basename(key)) for key in keys[:shown]]
        more = [f"and {len(keys) - shown:,} more"] if len(keys) > shown else []
        table.add_row(f"{len(keys):,}", printable(reason), ", ".join(names + more))
    return table


def one_by_one(skipped: Mapping[str, str]) -> Table:
    """One row for each file."""
    table = Table("file", "reason")
    table.columns[0].overflow = "fold"
    for key, reason in skipped.items():
        table.add_row(printable(key), printable(reason))
    return table
