"""Joint: heads, neurons, head dimensions, merging and exit layer under one budget, by measurement.

The command to begin with. Pruning makes tokens cheaper, merging makes them fewer, an early exit
stops soon; which of these a tower can best do without is measured in one currency, what the aligned
embedding loses:

1. The tower goes over the calibration images with no merging and with several schedules of it, and
   is read off after several layers. The leave-one-out error of the alignment is what that exit and
   that merging lose by themselves (`compress.searching.exits`).
2. For each exit that may still win, curves say what the exit's embedding loses as each sublayer
   gets smaller. Merging makes the upper layers cheap, so for each schedule the dynamic programme
   of recoverable pruning finds the best sizes at those prices. Losses are taken to add up.
3. The combinations that promise most are made: pruned, repaired, merging, aligned; the one that
   loses least on images left out of the alignment is the result.

Where the budget is of seconds and a person's own files are named, it is of all seconds from a file
to its embedding. A sample of the files is opened by each way to read (`compress.searching.ways`);
what a way leaves to the encoder is spent as above, on calibration images that are read as well in
this way, and the way whose tower loses least is the result's.

    python -m compress.joint --mac-constraint 0.07
    python -m compress.joint --latency-constraint 0.1 --files ~/Pictures
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from commands.run import main_of
from compress.budgets.budgets import Budget, MacBudget, SecondBudget, by_setting
from compress.choices import Thoroughness
from compress.command import run_command
from compress.errors import UserError
from compress.options import CombinationOptions, OutputOptions


@dataclass(frozen=True)
class JointOptions(CombinationOptions, OutputOptions):
    """Prune, merge, exit and align a CLIP vision tower, all under one budget.

    Example: python -m compress.joint --mac-constraint 0.07
    """


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("compress.joint"), JointOptions, "compress.joint")

from compress.budgets.token_prices import MacPrices, SecondPrices
from compress.making.rule import Rule, Step
from compress.making.source import Needs, Source
from compress.rule_command import run_rule
from compress.searching.combinations import Tried, best_combinations, exits_tried
from compress.searching.ways import FullTower, Opened, Way, opened, promising
from corpora.decoding.reads import READS
from corpora.readers.places import Sample, sample_of
from pruning_mechanism import has_all_layers, is_smaller
from pruning_mechanism.costs.latency_measurement import measured_share

USUAL_MACS = (0.07,)
"""The MAC constraint if none is asked for."""
CORRECTIONS = 5
"""Times that a latency constraint is corrected by what the finished tower took."""
MARGIN = 0.99
"""Share of the constraint that a correction aims at: a clock doesn't repeat itself exactly."""
LEFT = 0.95
"""Share of the constraint below which a finished tower leaves seconds that it should spend."""


@dataclass(frozen=True)
class Search:
    """What is looked for, and how thoroughly; `forgetting`: nothing is kept for further budgets."""

    budget: MacBudget | SecondBudget
    thoroughness: Thoroughness
    forgetting: bool = False

    @property
    def label(self) -> str:
        """How messages call it."""
        return self.budget.setting.label


@dataclass(frozen=True)
class Found:
    """The combinations of a source that were tried under one constraint.

    Under a latency constraint `seconds` are what they were chosen by, and `share` is the best
    one's measured seconds / the dense tower's. Where those of opening files count as well, `opened`
    says what these are, `way` how files are read, and `others` what came of other ways.
    """

    source: Source
    tried: Sequence[Tried]
    seconds: SecondPrices | None = None
    share: float | None = None
    opened: Opened | None = None
    way: Way | None = None
    others: Mapping[Way, str] = field(default_factory=dict)

    @property
    def best(self) -> Tried:
        """The one that loses least."""
        return min(self.tried, key=lambda combination: combination.lost)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the record should know of the best."""
        says = (self.best.candidate.says,)
        if self.share is None:
            return says
        if self.opened is None or self.way is None:
            return (
                *says,
                f"took {self.share:.3f} of the full tower's seconds here, from pixels on",
            )
        return (*says, *self.opened.notes(self.way, self.share), *self._ways)

    @property
    def _ways(self) -> tuple[str, ...]:
        others = "; ".join(f"{way.says}: {reason}" for way, reason in self.others.items())
        return (f"other ways to read: {others}",) if others else ()


def rule(options: CombinationOptions) -> Rule:
    """The joint search under the options' budgets.

    Raises:
        UserError: what is made isn't to be aligned.
    """
    options.check()
    thoroughness = options.thoroughness
    several = len(options.latency_constraint) > 1

    @cache
    def sample() -> Sample:
        return sample_of(options.files, options.files_sample, options.seed)

    def check(source: Source, _budget: MacBudget | SecondBudget) -> None:
        exits_tried(source.model.config, thoroughness)
        if not has_all_layers(source.model):
            raise UserError(
                f"{source.path} is smaller already: name the dense checkpoint, or a result of "
                "compress.patch_size --align none"
            )
        if options.files:
            sample()

    def step(source: Source, budget: MacBudget | SecondBudget) -> Step:
        if options.files and isinstance(budget, SecondBudget):
            reads = (options.reads,) if options.reads else READS
            search = Search(budget, thoroughness, forgetting=not several)
            found = _from_files(source, search, sample(), [Way(read) for read in reads])
        else:
            found = _from_pixels(source, Search(budget, thoroughness))
        made, own = found.best.model, found.source
        return Step(
            made, own.processor, source=own, notes=found.notes, files=partial(_write, found)
        )

    budgets: Iterable[Budget] = map(SecondBudget, options.latency_constraint)
    if not options.latency_constraint:
        budgets = map(MacBudget, options.mac_constraint or USUAL_MACS)
    return Rule("joint", by_setting(budgets), step, check, Needs.of("ridge"))


def _from_pixels(source: Source, search: Search) -> Found:
    """The combinations that promised most, made and measured; seconds are those of encoders."""
    if isinstance(search.budget, SecondBudget):
        return _within(source, _full(source), search.budget.share, search)
    prices = MacPrices.under(source.model.config, search.budget.share)
    return Found(source, best_combinations(source, prices, search.thoroughness, search.label))


def _from_files(source: Source, search: Search, sample: Sample, ways: Sequence[Way]) -> Found:
    """The way to read whose best combination loses least; seconds are those from file on.

    Raises:
        UserError: no way leaves a tower enough.
    """
    full, share = _full(source), search.budget.share
    opening = source.cache.once(
        ("opened", sample, tuple(ways)),
        lambda: opened(sample, dict.fromkeys(ways, source.processor), full),
    )
    left, others = promising(opening, share)
    found: dict[Way, Found] = {}
    for way, of_encoder in left.items():
        own = source.reading(way.reads)
        try:
            found[way] = _within(own, full, of_encoder, search)
        except UserError as error:
            others[way] = str(error).removeprefix(f"{search.label}: ")
        if search.forgetting:
            own.cache.forget()
    if not found:
        reasons = "; ".join(f"{way.says}: {reason}" for way, reason in others.items())
        raise UserError(f"{search.label} leaves no tower enough, from file to embedding: {reasons}")
    best = min(found, key=lambda way: found[way].best.lost)
    for way in found.keys() - {best}:
        others[way] = (
            f"lost {found[way].best.lost:.4f} where {best.says} lost {found[best].best.lost:.4f}"
        )
    return replace(found[best], opened=opening, way=best, others=others)


def _full(source: Source) -> FullTower:
    """The tower that a latency constraint is a share of, as it is deployed."""
    model, processor = source.model, source.processor
    if is_smaller(model):  # its patches are coarser
        model, processor = source.full.tower.model, source.full.processor
    return FullTower(source.deployed(model), processor, source.sampling.batch_size)


def _within(source: Source, full: FullTower, asked: float, search: Search) -> Found:
    """The best combinations whose encoder takes a share of the full tower's encoder's seconds.

    Raises:
        UserError: there is none.
    """
    size, dense = full.batch_size, source.deployed(source.model)
    known = source.cache.shared
    measured = known.once(
        ("seconds", size, source.chain), lambda: SecondPrices.measured(dense, size)
    )
    best, share_asked = None, asked
    if is_smaller(source.model):  # it takes less time already
        own = known.once(
            ("share", size, source.chain), lambda: measured_share(dense, full.model, size)
        )
        share_asked = min(1.0, asked / own)
    for _ in range(CORRECTIONS):
        prices = measured.under(share_asked)
        tried = best_combinations(source, prices, search.thoroughness, search.label)
        made = source.deployed(Found(source, tried).best.model)
        share = measured_share(made, full.model, size)
        found = Found(source, tried, measured, share)
        if share <= asked and (best is None or found.best.lost < best.best.lost):
            best = found
        if best and (share >= LEFT * asked or share_asked == 1.0):
            break  # seconds are spent, or the last correction asked for too many
        share_asked = min(1.0, share_asked * MARGIN * asked / share)
    if best is None:
        raise UserError(
            f"{search.label}: after {CORRECTIONS} corrections the finished tower still took "
            f"{share:.3f} of the dense one's seconds; ask for a little less"
        )
    return best


def _write(found: Found, directory: Path) -> None:
    """The best mask, all that was tried and the seconds, beside the model."""
    found.best.candidate.kept.save(directory / "mask.safetensors")
    tried = [
        _entry(combination) | {"chosen": combination is found.best} for combination in found.tried
    ]
    content = {"schema": 1, "metric": "1 - cos to the full tower's embedding", "tried": tried}
    if prices := found.seconds:
        counts = [latency.conditions.tokens for latency in prices.tables]
        for tokens, table in zip(counts, prices.tables, strict=True):
            table.save(directory / f"latency-{tokens}-tokens.json")
        content["seconds_of_merging"] = dict(zip(counts, prices.merging, strict=True))
    if found.opened and found.way:
        content["reads"] = found.way.says
        content["files"] = found.opened.entries()
        content["other_ways"] = {way.says: reason for way, reason in found.others.items()}
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


def main(options: JointOptions) -> None:
    """Search, save."""
    run_rule(rule(options), options)
