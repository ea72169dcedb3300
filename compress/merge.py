"""Token merging: in each layer the most similar tokens become one.

ToMe (arXiv 2210.09461): bipartite soft matching by the attention's keys, between attention and MLP;
every token counts in the attention of the layers above for as many patches as it stands for.

    python -m compress.merge --r 8
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

from commands.flags import NumberFromZero, Share, by_default
from compress.budgets.prices import Constraint
from compress.command import run_command
from compress.making.options import AlignOptions, OutputOptions
from compress.making.reduced import (
    ReduceRule,
    by_reduction,
    check_of,
    run_reduce,
    settings_of,
    within,
)
from pruning_mechanism import Reduction, Shape
from pruning_mechanism.families import tower_config

Schedule = Literal["constant", "decreasing"]
USUAL_R = (8,)
"""The tokens that merge in a layer if no number is asked for."""


@dataclass(frozen=True)
class MergingOptions(AlignOptions):
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


def spread(total: int, layers: int, schedule: Schedule = "constant") -> tuple[int, ...]:
    """How many of `total` tokens merge in each layer: as evenly, or as evenly falling, as can be.

    Each layer's number is the difference of two rounded sums, so that they add up to `total`.
    """
    if schedule == "constant":
        sums = [total * layer // layers for layer in range(layers + 1)]
    else:  # falls linearly from the first layer to 0 in the last
        weights = range(layers - 1, -1, -1) if layers > 1 else [1]
        done = [sum(weights[:layer]) for layer in range(layers + 1)]
        sums = [total * each // done[-1] for each in done]
    return tuple(after - before for before, after in pairwise(sums))


def schedules(config, schedule: Schedule = "constant") -> Sequence[tuple[int, ...]]:
    """All schedules of a tower, from no token merged to as many as there are."""
    layers = tower_config(config, "vision").num_hidden_layers
    tokens = int(Shape.of(config).tokens)
    return [spread(total, layers, schedule) for total in range(layers * tokens // 2)]


def rule(options: MergingOptions) -> ReduceRule:
    """Token merging at the options' numbers or under their constraints."""
    settings = settings_of("r", options.r or USUAL_R, options.mac_constraint)

    def choose(config, setting: Constraint) -> Reduction:
        layers = tower_config(config, "vision").num_hidden_layers
        if setting.kind == "r":
            total = int(setting.value) * layers
            return Reduction(merged_per_layer=spread(total, layers, options.schedule))
        every = [Reduction(merged_per_layer=each) for each in schedules(config, options.schedule)]
        return within(config, every, setting)

    return ReduceRule("merge", settings, by_reduction(choose), check_of(choose))


def main(options: MergeOptions) -> None:
    """Merge, align and save."""
    run_reduce(rule(options), options)


if __name__ == "__main__":
    run_command(main, MergeOptions, "compress.merge")
