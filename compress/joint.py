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

    python -m compress.joint --mac-constraint 0.07
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
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
class Found:
    """The combinations tried under one constraint.

    Under a latency constraint `seconds` are what they were chosen by, and `share` is the best
    one's measured seconds / the dense tower's.
    """

    tried: Sequence[Tried]
    seconds: SecondPrices | None = None
    share: float | None = None

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
        return (*says, f"took {self.share:.3f} of the full tower's seconds here")


def rule(options: CombinationOptions) -> Rule:
    """The joint search under the options' budgets.

    Raises:
        UserError: what is made isn't to be aligned.
    """
    options.check()
    thoroughness = options.thoroughness

    def check(source: Source, _budget: MacBudget | SecondBudget) -> None:
        exits_tried(source.model.config, thoroughness)
        if not has_all_layers(source.model):
            raise UserError(
                f"{source.path} is smaller already: name the dense checkpoint, or a result of "
                "compress.patch_size --align none"
            )

    def step(source: Source, budget: MacBudget | SecondBudget) -> Step:
        found = _search(source, budget, thoroughness)
        files = partial(_write, found)
        return Step(found.best.model, source.processor, notes=found.notes, files=files)

    budgets: Iterable[Budget] = map(SecondBudget, options.latency_constraint)
    if not options.latency_constraint:
        budgets = map(MacBudget, options.mac_constraint or USUAL_MACS)
    return Rule("joint", by_setting(budgets), step, check, Needs.of("ridge"))


def _search(source: Source, budget: MacBudget | SecondBudget, thoroughness: Thoroughness) -> Found:
    """The combinations that promised most, made and measured."""
    label = budget.setting.label
    if isinstance(budget, MacBudget):
        prices = MacPrices.under(source.model.config, budget.share)
        return Found(best_combinations(source, prices, thoroughness, label))
    size, dense = source.sampling.batch_size, source.deployed(source.model)
    measured = source.cache.once(("seconds", size), lambda: SecondPrices.measured(dense, size))
    asked, best, full = budget.share, None, dense
    share_asked = asked
    if is_smaller(source.model):  # its patches are coarser, which takes less time already
        full = source.deployed(source.full.tower.model)
        own = source.cache.once(("share", size), lambda: measured_share(dense, full, size))
        share_asked = min(1.0, asked / own)
    for _ in range(CORRECTIONS):
        tried = best_combinations(source, measured.under(share_asked), thoroughness, label)
        share = measured_share(source.deployed(Found(tried).best.model), full, size)
        found = Found(tried, measured, share)
        if share <= asked and (best is None or found.best.lost < best.best.lost):
            best = found
        if best and (share >= LEFT * asked or share_asked == 1.0):
            break  # seconds are spent, or the last correction asked for too many
        share_asked = min(1.0, share_asked * MARGIN * asked / share)
    if best is None:
        raise UserError(
            f"{label}: after {CORRECTIONS} corrections the finished tower still took "
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
