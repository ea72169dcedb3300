"""Token rules: reductions that a configuration and a setting decide, whatever the images."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from compress.budgets.budgets import MacBudget, by_setting
from compress.budgets.settings import Setting
from compress.errors import UserError
from compress.making.rule import Rule, Step
from compress.making.source import Source
from pruning_mechanism import Reduction, mac_fraction, reduce
from pruning_mechanism.protocols import Config

Choose = Callable[[Config, Any], Reduction]
"""The reduction of a tower of a configuration for what is asked."""


def reducing(name: str, asked: Mapping[Setting, Any], choose: Choose) -> Rule:
    """A rule that leaves out tokens or layers as `choose` says."""

    def step(source: Source, value: Any) -> Step:
        reduction = choose(source.model.config, value)
        return Step(reduce(source.model, reduction), source.processor)

    return Rule(name, asked, step, check_of(choose))


def check_of(choose: Choose) -> Callable[[Source, Any], None]:
    """The check of such a rule."""

    def check(source: Source, value: Any) -> None:
        config = source.model.config
        choose(config, value).check(config)

    return check


def asked_of(kind: str, values: Sequence[float], shares: Sequence[float]) -> dict[Setting, Any]:
    """What a token rule is asked for: shares of MACs if there are any, or values of its own."""
    if shares:
        return by_setting(map(MacBudget, shares))
    return {Setting(kind, value): value for value in dict.fromkeys(values)}


def within(config: Config, candidates: Sequence[Reduction], budget: MacBudget) -> Reduction:
    """The candidate of most MACs that keeps to a budget.

    Raises:
        UserError: none does.
    """
    shares = [mac_fraction(config, candidate) for candidate in candidates]
    fitting = [index for index, share in enumerate(shares) if share <= budget.share]
    if not fitting:
        raise UserError(
            f"{budget.setting.label}: the least that this rule leaves of this tower is "
            f"{min(shares):.3f} of its MACs"
        )
    return candidates[max(fitting, key=shares.__getitem__)]
