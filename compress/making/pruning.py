"""Pruning rules: a plan for each tower, cut out of it.

Between a rule's own choice of units and repair. A tower that was pruned before is pruned further;
one that exits early or takes fewer tokens loses units of what is left of it.
"""

import copy
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedModel

from compress.allocation.plan import Plan, Scored, Select, plan_of
from compress.budgets.budgets import Budget, HeadBudget, SecondBudget, by_setting
from compress.budgets.structures import check_reach
from compress.calibrating.importance import Importance
from compress.calibrating.subject import Subject
from compress.choices import USUAL_STRUCTURES, Spending, Structure
from compress.errors import UserError
from compress.making.rule import Cut, Rule, Step
from compress.making.source import Needs, Source
from pruning_mechanism import Mask, Tower, TowerKind, is_pruned, is_smaller, prune
from pruning_mechanism.families import tower_config
from pruning_mechanism.widening import widened

LEAST_IMAGES = 2
"""Calibration images that units are scored by at least."""
UNPRUNABLE = ("merged_per_layer", "ranked_per_layer", "resolutions")
"""Entries of towers whose sublayers see other tokens once they are pruned."""


@dataclass(frozen=True)
class Scoring:
    """How a rule scores the units of a tower, and what its scores depend on beside the tower."""

    score: Callable[[Subject], Importance]
    key: Hashable
    captions: bool = False

    def of(self, subject: Subject) -> Scored:
        """The importance of a tower's units, made once."""
        return Scored(subject.once(self.key, lambda: self.score(subject)), self.key)


def pruning(
    name: str, budgets: Sequence[Budget], scoring: Scoring, select: Select, spending: Spending
) -> Rule:
    """A rule that scores units, and keeps the best under a budget.

    Args:
        name: as in records and directories.
        budgets: one result each.
        scoring: how units are scored.
        select: the rule's choice; see `compress.allocation.plan`.
        spending: how a budget is spread over the layers, and what may go.
    """
    return planned(
        name,
        budgets,
        lambda subject, budget: plan_of(subject, scoring.of(subject), budget, spending, select),
        scoring.captions,
        spending.structures,
    )


def planned(
    name: str,
    budgets: Sequence[Budget],
    plan: Callable[[Subject, Budget], Plan],
    captions: bool = False,
    structures: Collection[Structure] = USUAL_STRUCTURES,
) -> Rule:
    """A rule that plans what each tower keeps under a budget."""

    def step(source: Source, budget: Budget) -> Step:
        cuts = tuple(decide(subject, budget) for subject in source.subjects)
        first, *others = cuts
        made = cut(first.subject, first.plan)
        for other in others:
            made = cut(other.subject, other.plan, made)
        return Step(made, source.processor, cuts)

    def decide(subject: Subject, budget: Budget) -> Cut:
        decided = plan(subject, _of_real_heads(budget, subject))
        if subject.alive is not None:  # what is gone already stays gone
            decided = replace(decided, mask=decided.mask & subject.alive)
        return Cut(subject, decided)

    def check(source: Source, budget: Budget) -> None:
        for subject in source.subjects:
            _check_prunable(source, subject, budget)
            if isinstance(budget, HeadBudget) and subject.alive is not None:
                _check_real_heads(budget, subject.alive, subject.kind)
            check_reach(structures, budget, subject.model.config, subject.kind)

    return Rule(
        name, by_setting(budgets), step, check, Needs(captions=captions, images=LEAST_IMAGES)
    )


def cut(subject: Subject, plan: Plan, model: PreTrainedModel | None = None) -> PreTrainedModel:
    """A model with one tower pruned as planned; what it is made from stays as it is.

    `model` is one whose other tower has been pruned already, where both are.
    """
    if model is None:
        model = plan.turned or subject.model
    else:
        if is_pruned(model, subject.kind):
            model = widened(model, subject.kind).model
        if plan.turned is not None:
            model = _with_tower(model, Tower.of(plan.turned, subject.kind))
    return prune(model, plan.mask, subject.kind)


def _with_tower(model: PreTrainedModel, tower: Tower) -> PreTrainedModel:
    """A copy of a model with the weights of a tower of the same shape as its own."""
    copied = copy.deepcopy(model)
    for own, given in zip(Tower.of(copied, tower.kind).modules, tower.modules, strict=True):
        own.load_state_dict(given.state_dict())
    return copied


def _of_real_heads(budget: Budget, subject: Subject) -> Budget:
    """A number of heads that go, those counted in that are gone already."""
    if not isinstance(budget, HeadBudget) or subject.alive is None:
        return budget
    return HeadBudget(budget.heads + int((~subject.alive.heads).sum()))


def _check_real_heads(budget: HeadBudget, alive: Mask, tower: TowerKind) -> None:
    left = int(alive.heads.sum())
    if budget.heads > left:
        raise UserError(f"{budget.heads} heads can't go: the {tower} tower has {left} of them left")


def _check_prunable(source: Source, subject: Subject, budget: Budget) -> None:
    """Raise `UserError` for a tower that can't be pruned any more."""
    config = tower_config(source.model.config, subject.kind)
    done = [name for name in UNPRUNABLE if getattr(config, name, None)]
    if done:
        raise UserError(
            f"{source.path} merges or ranks tokens, or takes several resolutions: prune it before "
            "it does"
        )
    if isinstance(budget, SecondBudget) and is_smaller(source.model):
        raise UserError(
            f"{source.path} is smaller already: its share of the dense tower's seconds isn't "
            "known; ask for a share of MACs"
        )
