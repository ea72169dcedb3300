"""What `compress.joint` looks for, and what it found: the notes and files of a result.

Stands between a search under some budget and the record of what it made.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compress.budgets.token_prices import SecondPrices
from compress.choices import Deployment
from compress.making.source import Source
from compress.searching.combinations import Tried, least_lost
from compress.searching.ways import Opened, Way


@dataclass(frozen=True)
class Chosen:
    """The way to read files that was chosen, what all ways take, and what came of the others."""

    way: Way
    opened: Opened
    others: Mapping[Way, str] = field(default_factory=dict)

    def notes(self, of_encoder: float) -> tuple[str, ...]:
        """What a record says, given the share of the full encoder's seconds that was spent."""
        others = "; ".join(f"{way.says}: {reason}" for way, reason in self.others.items())
        return (
            *self.opened.notes(self.way, of_encoder),
            *((f"other ways to read: {others}",) if others else ()),
        )

    def entries(self) -> dict[str, Any]:
        """All that is known of it, for a file beside the model."""
        return {
            "way": self.way.says,
            "files": self.opened.entries(),
            "other_ways": {way.says: reason for way, reason in self.others.items()},
        }


@dataclass(frozen=True)
class Found:
    """The combinations of a source that were tried under one constraint.

    Under a latency constraint `seconds` are what they were chosen by, and `share` is the best
    one's measured seconds / the dense tower's, encoders alone, both in the `deployment`. Where
    those of opening files count as well, `chosen` says how files are read, and what that takes.
    """

    source: Source
    tried: Sequence[Tried]
    seconds: SecondPrices | None = None
    share: float | None = None
    chosen: Chosen | None = None
    deployment: Deployment = field(default_factory=Deployment)

    @property
    def best(self) -> Tried:
        """The one that loses least."""
        return least_lost(self.tried)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the record should know of the best."""
        says, share = self.best.candidate.says, self.share
        if share is None:
            return (says,)
        if self.chosen is None:
            place = "" if self.deployment.plain else f" in {self.deployment.says}"
            return says, f"took {share:.3f} of the full tower's seconds here{place}, from pixels on"
        return says, *self.chosen.notes(share)

    def write(self, directory: Path) -> None:
        """Write the best mask, all that was tried and the seconds beside the model."""
        self.best.candidate.kept.save(directory / "mask.safetensors")
        tried = [_entry(each) | {"chosen": each is self.best} for each in self.tried]
        content = {"schema": 1, "metric": "1 - cos to the full tower's embedding", "tried": tried}
        if prices := self.seconds:
            counts = [latency.conditions.tokens for latency in prices.tables]
            for tokens, table in zip(counts, prices.tables, strict=True):
                table.save(directory / f"latency-{tokens}-tokens.json")
            content["seconds_of_merging"] = dict(zip(counts, prices.merging, strict=True))
        if self.chosen:
            content |= self.chosen.entries()
        (directory / "joint.json").write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")


def _entry(tried: Tried) -> dict[str, Any]:
    candidate = tried.candidate
    return {
        "exit": candidate.layers,
        "merged_per_layer": list(candidate.merged),
        "kept": {name: bits.sum(1).tolist() for name, bits in candidate.kept.tensors.items()},
        "promised": candidate.promised,
        "lost": tried.lost,
    }
