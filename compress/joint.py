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

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, partial

from commands.run import main_of
from compress.budgets.budgets import Budget, FileBudget, MacBudget, SecondBudget, by_setting
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

from compress import patch_size, resolution
from compress.budgets.settings import Setting
from compress.budgets.token_prices import MacPrices
from compress.making.rule import Rule, Step, continued
from compress.making.source import Needs, Source
from compress.rule_command import run_rule
from compress.searching.combinations import best_combinations, exits_tried
from compress.searching.files import from_files
from compress.searching.found import Found
from compress.searching.latency import full_tower, within
from compress.searching.search import Search
from corpora.decoding.reads import READS
from corpora.readers.places import Sample, sample_of
from pruning_mechanism import has_all_layers
from pruning_mechanism.families import tower_config

USUAL_MACS = (0.07,)
"""The MAC constraint if none is asked for."""


def rule(options: CombinationOptions) -> Rule:
    """The joint search under the options' budgets.

    Raises:
        UserError: what is made isn't to be aligned.
    """
    options.check()
    thoroughness = options.thoroughness
    several = len(options.latency_constraint) > 1
    smaller = _smaller(options)

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
        for setting, smaller_images in smaller.items():
            smaller_images.check(source, smaller_images.asked[setting])
        side = tower_config(source.model.config, "vision").image_size
        if too_large := [each for each in options.resolutions if each >= side]:
            raise UserError(
                f"--resolutions {too_large[0]}: the tower takes images of {side} already"
            )
        if options.files:
            sample()

    def step(source: Source, budget: MacBudget | SecondBudget) -> Step:
        if isinstance(budget, FileBudget):
            reads = (options.reads,) if options.reads else READS
            search = Search(budget, thoroughness, options.finish, forgetting=not several)
            found = from_files(_sources(source, smaller), search, sample(), reads)
        else:
            found = _from_pixels(source, Search(budget, thoroughness, options.finish))
        made, own = found.best.model, found.source
        return Step(
            made, own.processor, source=own, timed=True, notes=found.notes, files=found.write
        )

    budgets: Iterable[Budget] = options.seconds(FileBudget if options.files else SecondBudget)
    if not options.latency_constraint:
        budgets = map(MacBudget, options.mac_constraint or USUAL_MACS)
    return Rule("joint", by_setting(budgets), step, check, Needs.of("ridge"))


def _smaller(options: CombinationOptions) -> Mapping[Setting, Rule]:
    """What makes images smaller, as the options ask for it, each by the rule that does so."""
    rules = []
    if options.resolutions:
        asked = resolution.ResolutionOptions(resolution=options.resolutions, align="none")
        rules.append(resolution.rule(asked))
    if options.patch_sizes:
        rules.append(patch_size.rule(patch_size.PatchOptions(patch_size=options.patch_sizes)))
    return {setting: made for made in rules for setting in made.settings}


def _sources(source: Source, smaller: Mapping[Setting, Rule]) -> Mapping[Setting | None, Source]:
    """The source, and what it is with smaller images, made once for all budgets."""

    def made(setting: Setting, rule: Rule) -> Source:
        done = f"{rule.name} {setting.label}"
        return continued(source, rule.step(source, rule.asked[setting]), done)

    return {
        None: source,
        **{
            setting: source.cache.once(("smaller images", setting), partial(made, setting, rule))
            for setting, rule in smaller.items()
        },
    }


def _from_pixels(source: Source, search: Search) -> Found:
    """The combinations that promised most, made and measured; seconds are those of encoders."""
    if isinstance(search.budget, SecondBudget):
        full = full_tower(source, search.deployment)
        return within(source, full, search.budget.share, search)
    prices = MacPrices.under(source.model.config, search.budget.share)
    return Found(source, best_combinations(source, prices, search))


def main(options: JointOptions) -> None:
    """Search, save."""
    run_rule(rule(options), options)
