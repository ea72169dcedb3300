"""Joint: heads, neurons, head dimensions, merging and exit layer under one budget, by measurement.

The command to begin with. Pruning makes tokens cheaper, merging makes them fewer, an early exit
stops soon; which of these a tower can best do without is measured in one currency, what the aligned
embedding loses:

1. The tower goes over the calibration images with no merging and with several schedules of it, and
   is read off after every layer. The leave-one-out error of the alignment is what that exit and
   that merging lose by themselves (`compress.exits`).
2. For each exit that may still win, curves say what the exit's embedding loses as each sublayer
   gets smaller. Merging makes the upper layers cheap, so for each schedule the dynamic programme
   of recoverable pruning finds the best sizes at those prices. Losses are taken to add up.
3. The combinations that promise most are made: pruned, repaired, merging, aligned; the one that
   loses least on images left out of the alignment is the result.

    python -m compress.joint --mac-constraint 0.07
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from compress.budget import Constraint
from compress.combinations import CombinationOptions, Tried, best_combinations, exits_tried
from compress.command import UserError, run_command
from compress.options import OutputOptions
from compress.reduced import ReduceRule, Step, run_reduce
from compress.source import Source
from compress.token_prices import MacPrices, SecondPrices
from pruning_mechanism import is_smaller
from pruning_mechanism.latency import LatencyTable
from pruning_mechanism.latency_measurement import measured_share

CORRECTIONS = 3
"""Times that a latency constraint is tightened where the finished tower took longer."""


@dataclass(frozen=True)
class JointOptions(CombinationOptions, OutputOptions):
    """Prune, merge, exit and align a CLIP vision tower, all under one budget.

    Example: python -m compress.joint --mac-constraint 0.07
    """


def rule(options: CombinationOptions) -> ReduceRule:
    """The joint search under the options' constraints.

    Raises:
        UserError: options contradict each other or are out of range.
    """
    settings = _settings(options)

    def step(source: Source, setting: Constraint) -> Step:
        if is_smaller(source.model):
            raise UserError(f"{source.path} is smaller already: name the dense checkpoint")
        exits_tried(source.model.config, options)  # before any work
        found, tables = _search(source, setting, options)
        best = min(found, key=lambda each: each.lost)
        files = partial(_write, found, best, tables)
        notes = (best.candidate.says,)
        return Step(best.model, source.processor, notes=notes, files=files)

    return ReduceRule("joint", settings, step)


def _settings(options: CombinationOptions) -> tuple[Constraint, ...]:
    if options.align == "none":
        raise UserError("compress.joint judges by the aligned embedding: --align ridge")
    for name in ("search_samples", "score_samples", "curve_samples", "tries"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1")
    kind, values = "MAC", options.mac_constraint
    if options.latency_constraint:
        kind, values = "latency", options.latency_constraint
        if "head_dims" in options.structures:
            raise UserError(
                "--latency-constraint has no seconds of heads of other sizes: "
                "--structures heads,neurons,sublayers"
            )
    if not values:
        raise UserError("name a --mac-constraint or a --latency-constraint")
    settings = tuple(Constraint(kind, each) for each in dict.fromkeys(values))
    for each in settings:
        each.check()
    return settings


def _search(
    source: Source, setting: Constraint, options: CombinationOptions
) -> tuple[list[Tried], tuple[LatencyTable, ...]]:
    """The combinations that promised most, made and measured, and the seconds they go by."""
    if setting.kind == "MAC":
        prices = MacPrices.under(source.model.config, setting.value)
        return best_combinations(source, prices, options, setting.label), ()
    measured = source.ledger.once(
        "seconds", lambda: SecondPrices.measured(source.model, options.batch_size)
    )
    constraint = setting.value
    for _ in range(CORRECTIONS):
        tried = best_combinations(source, measured.under(constraint), options, setting.label)
        best = min(tried, key=lambda each: each.lost)
        share = measured_share(best.model, source.model, options.batch_size)
        if share <= setting.value:
            return tried, measured.tables
        constraint *= setting.value / share  # what no table holds: matching, reading off
    raise UserError(
        f"{setting.label}: after {CORRECTIONS} corrections the finished tower still took "
        f"{share:.3f} of the dense one's seconds; ask for a little less"
    )


def _write(
    tried: Sequence[Tried], best: Tried, tables: Sequence[LatencyTable], directory: Path
) -> None:
    """The mask, all that was tried and the seconds, beside the model."""
    best.candidate.mask.save(directory / "mask.safetensors")
    for table in tables:
        table.save(directory / f"latency-{table.conditions.tokens}-tokens.json")
    entries = [
        {
            "exit": each.candidate.exit,
            "merged_per_layer": list(each.candidate.schedule),
            "kept": {
                name: bits.sum(1).tolist() for name, bits in each.candidate.mask.tensors.items()
            },
            "promised": each.candidate.promised,
            "lost": each.lost,
            "chosen": each is best,
        }
        for each in tried
    ]
    content = {"schema": 1, "metric": "1 - cos to the last stage's embedding", "tried": entries}
    (directory / "joint.json").write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")


def main(options: JointOptions) -> None:
    """Search, save."""
    run_reduce(rule(options), options)


if __name__ == "__main__":
    run_command(main, JointOptions, "compress.joint")
