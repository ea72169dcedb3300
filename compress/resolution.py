"""Input resolution: smaller images, for all or for those that lose least by it.

With one resolution positions are interpolated once, and the checkpoint takes images of that size.
With several, `--choose-from`, each image takes the smallest size at which it loses no more than a
bound of its pixels' mean square; the bound is where the mean MACs of the calibration images meet
the budget. The checkpoint then takes images of the old size and reduces them itself, those of one
size together.

    python -m compress.resolution --resolution 96
    python -m compress.resolution --choose-from 64,96,128 --mac-constraint 0.6
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from commands.flags import Count, Share, by_default
from commands.run import main_of
from compress.budgets.budgets import MacBudget
from compress.command import run_command
from compress.errors import UserError
from compress.options import USUAL_MACS, OutputOptions, TokenOptions


@dataclass(frozen=True)
class ResolutionOptions(TokenOptions):
    """Which sizes images have."""

    resolution: tuple[Count, ...] = ()
    """side in pixels of all images; several share the last stage's pass"""
    mac_constraint: Annotated[tuple[Share, ...], by_default("0.5")] = ()
    """instead: kept MACs / dense MACs of the encoder layers, in (0, 1]; picks the side"""
    choose_from: tuple[Count, ...] = ()
    """sides that each image has its own of; their mean cost keeps the --mac-constraint"""

    exclusive: ClassVar = (("resolution", "mac_constraint"), ("resolution", "choose_from"))

    def check(self) -> None:
        """Raise `UserError` if there is one size to choose from."""
        super().check()
        if len(set(self.choose_from)) == 1:
            raise UserError("--choose-from takes two sides at least: for one name a --resolution")


@dataclass(frozen=True)
class ResolutionCommandOptions(ResolutionOptions, OutputOptions):
    """Reduce all images, or each by what it would lose.

    Example: python -m compress.resolution --resolution 96
    """


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("compress.resolution"), ResolutionCommandOptions, "compress.resolution")

import torch
from torch import Tensor

from compress.making.reducing import asked_of, check_of, within
from compress.making.rule import Rule, Step
from compress.making.source import Source
from compress.rule_command import run_rule
from pruning_mechanism import Reduction, mac_fraction, reduce
from pruning_mechanism.checkpoints.preparation import resized_processor
from pruning_mechanism.families import tower_config
from pruning_mechanism.modeling.tokens import complexity
from pruning_mechanism.protocols import Config


def rule(options: ResolutionOptions) -> Rule:
    """Smaller images, of the options' sizes or under their constraints.

    Raises:
        UserError: there is one size to choose from.
    """
    options.check()
    shares = () if options.resolution else options.mac_constraint or USUAL_MACS
    asked = asked_of("resolution", options.resolution, shares)
    sides = sorted(options.choose_from)
    if not sides:
        return Rule("resolution", asked, _of_all, check_of(_one_size))

    def step(source: Source, budget: MacBudget) -> Step:
        return _of_each(source, budget, sides)

    def check(source: Source, budget: MacBudget) -> None:
        _costs(source.model.config, budget, sides)

    return Rule("resolution", asked, step, check)


def _one_size(config: Config, asked: float | MacBudget) -> Reduction:
    if not isinstance(asked, MacBudget):
        return Reduction(image_size=int(asked))
    own = tower_config(config, "vision")
    sides = range(own.patch_size, own.image_size + 1, own.patch_size)
    return within(config, [Reduction(image_size=side) for side in sides], asked)


def _of_all(source: Source, asked: float | MacBudget) -> Step:
    reduction = _one_size(source.model.config, asked)
    return Step(
        reduce(source.model, reduction), resized_processor(source.processor, reduction.image_size)
    )


def _of_each(source: Source, budget: MacBudget, sides: list[int]) -> Step:
    """The least loss that all images may be held to, so that their mean cost is in the budget."""
    costs = _costs(source.model.config, budget, sides)
    lost = torch.cat(
        [
            torch.stack([complexity(batch.pixels, side) for side in sides[:-1]], dim=1).cpu()
            for batch in source.calibration.batches("complexity")
        ]
    )
    bound = lowest_bound(lost, costs, budget.share)
    shares = torch.bincount(places(lost, bound), minlength=len(sides)) / len(lost)
    reduction = Reduction(
        resolutions=tuple(sides),
        resolution_bounds=(bound,) * (len(sides) - 1),
        resolution_shares=tuple(shares.tolist()),
    )
    return Step(
        reduce(source.model, reduction), source.processor, notes=(_spread(costs, lost, bound),)
    )


def _spread(costs: Tensor, lost: Tensor, bound: float) -> str:
    """How far the mean cost of the calibration images may be from that of others, for the record.

    It is within the budget by the choice of the bound: on other images it is about as often above.
    """
    of_images = costs[places(lost, bound)]
    error = of_images.std(correction=1).item() / len(lost) ** 0.5 if len(lost) > 1 else float("inf")
    return (
        f"the sides cost {of_images.mean():.3f} of the dense MACs on the {len(lost)} calibration "
        f"images, with a standard error of {error:.3f}: other images may cost more"
    )


def _costs(config: Config, budget: MacBudget, sides: list[int]) -> Tensor:
    """Shares of the dense MACs that images of these sides cost, ascending, float64 [sizes].

    Raises:
        UserError: a side is larger than the tower's, or not even the smallest keeps the constraint.
    """
    own = tower_config(config, "vision")
    if sides[-1] > own.image_size:
        raise UserError(f"--choose-from {sides[-1]}: the tower takes images of {own.image_size}")
    costs = torch.tensor(
        [mac_fraction(config, Reduction(image_size=side)) for side in sides], dtype=torch.float64
    )
    if costs[0] > budget.share:
        raise UserError(
            f"{budget.setting.label}: images of {sides[0]} pixels alone cost "
            f"{costs[0]:.3f}: add a smaller side"
        )
    return costs


def places(lost: Tensor, bound: float) -> Tensor:
    """Which size each image takes, int64 [n]: the first at which it loses no more than a bound.

    Args:
        lost: what images lose at each size but the largest, ascending, [n, sizes - 1].
        bound: what they may lose.
    """
    fits = torch.cat([lost <= bound, torch.ones(len(lost), 1, dtype=torch.bool)], dim=1)
    return fits.int().argmax(1)


def lowest_bound(lost: Tensor, costs: Tensor, budget: float) -> float:
    """The lowest bound at which the mean cost of the images is within a budget.

    Mean costs fall as the bound rises, in steps at the values of `lost`.

    Args:
        lost: as in `places`.
        costs: of the sizes, ascending [sizes].
        budget: at least the first of the costs.
    """
    steps = torch.cat([lost.new_zeros(1) - 1, lost.flatten().sort().values])
    low, high = 0, len(steps) - 1
    while low < high:
        middle = (low + high) // 2
        if costs[places(lost, steps[middle].item())].mean() <= budget:
            high = middle
        else:
            low = middle + 1
    return steps[low].item()


def main(options: ResolutionCommandOptions) -> None:
    """Reduce images, align and save."""
    run_rule(rule(options), options)
