"""Token merging: in each layer the most similar tokens become one.

ToMe (arXiv 2210.09461): bipartite soft matching by the attention's keys, between attention and MLP;
every token counts in the attention of the layers above for as many patches as it stands for.

    python -m compress.merge --r 8
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from commands.flags import NumberFromZero, Share, by_default
from commands.run import main_of
from compress.budgets.budgets import MacBudget
from compress.choices import Schedule
from compress.command import run_command
from compress.options import OutputOptions, TokenOptions


@dataclass(frozen=True)
class MergingOptions(TokenOptions):
    """How many tokens merge in each layer."""

    r: Annotated[tuple[NumberFromZero, ...], by_default("8")] = ()
    """tokens that merge in a layer, on average; several share the last stage's pass"""
    mac_constraint: tuple[Share, ...] = ()
    """instead: kept MACs / dense MACs of the encoder layers, in (0, 1]; picks the tokens"""
    schedule: Schedule = "constant"
    """as many in every layer, or most in the first and none in the last"""

    exclusive: ClassVar = (("r", "mac_constraint"),)


@dataclass(frozen=True)
class MergeOptions(MergingOptions, OutputOptions):
    """Merge similar tokens between attention and MLP (ToMe, arXiv 2210.09461).

    Example: python -m compress.merge --mac-constraint 0.5
    """


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("compress.merge"), MergeOptions, "compress.merge")

from compress.budgets.schedules import schedules, spread
from compress.making.reducing import asked_of, reducing, within
from compress.making.rule import Rule
from compress.rule_command import run_rule
from pruning_mechanism import Reduction
from pruning_mechanism.families import tower_config
from pruning_mechanism.protocols import Config

USUAL_R = (8,)
"""The tokens that merge in a layer if no number is asked for."""


def rule(options: MergingOptions) -> Rule:
    """Token merging at the options' numbers or under their budgets."""

    def choose(config: Config, asked: float | MacBudget) -> Reduction:
        layers = tower_config(config, "vision").num_hidden_layers
        if not isinstance(asked, MacBudget):
            total = int(asked) * layers
            return Reduction(merged_per_layer=spread(total, layers, options.schedule))
        every = [
            Reduction(merged_per_layer=merged) for merged in schedules(config, options.schedule)
        ]
        return within(config, every, asked)

    asked = asked_of("r", options.r or USUAL_R, options.mac_constraint)
    return reducing("merge", asked, choose)


def main(options: MergeOptions) -> None:
    """Merge, align and save."""
    run_rule(rule(options), options)
