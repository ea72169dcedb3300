"""A rule's step under a budget of seconds: the tower is timed, and made once more if it takes more.

Between a rule's choice by predicted seconds and the result, whose record says both.
"""

from contextlib import suppress
from dataclasses import replace
from operator import attrgetter

from transformers import PreTrainedModel

from compress.budgets.budgets import FileBudget, SecondBudget
from compress.budgets.correcting import Attempt, attempts
from compress.choices import Finish
from compress.errors import UserError
from compress.making.rule import Rule, Step
from compress.making.source import Source
from compress.solving.alignment import unsolved
from pruning_mechanism.deployed.seconds import measured_share

MOST = 2
"""Times that a tower is made."""
TOLERANCE = 0.03
"""What it may take more than the constraint, in shares of it: a clock doesn't repeat itself."""


def step_of(source: Source, rule: Rule, asked: object, finish: Finish) -> Step:
    """What a rule makes; under a budget of seconds, of what is made once more if it misses that.

    Raises:
        UserError: what is asked for can't be met.
    """
    if isinstance(asked, FileBudget) or not isinstance(asked, SecondBudget):
        return rule.step(source, asked)
    step = rule.step(source, asked)
    return step if step.timed else _timed(source, rule, asked, finish, step)


def as_finished(model: PreTrainedModel, finish: Finish) -> PreTrainedModel:
    """A tower as it will be once it is aligned, as far as its seconds depend on that."""
    if finish.align == "none":
        return model
    return unsolved(model, finish.align_features, finish.align_tokens)


def _timed(source: Source, rule: Rule, asked: SecondBudget, finish: Finish, first: Step) -> Step:
    """The first step, or one under a corrected budget if that took too much."""
    dense = source.deployed(source.model, asked.deployment)

    def make(share: float) -> Step:
        if share == asked.share:
            return first
        return rule.step(source, replace(asked, share=share))

    def took(step: Step) -> float:
        smaller = source.deployed(as_finished(step.model, finish), asked.deployment)
        return measured_share(smaller, dense, source.sampling.batch_size)

    tries = attempts(make, took, asked.share, asked.share, MOST)
    found = [next(tries)]
    if found[0].took > asked.share * (1 + TOLERANCE):
        with suppress(UserError):  # so little that not even an empty tower keeps it
            found += tries
    best = min(found, key=attrgetter("took"))
    return replace(best.made, notes=(*best.made.notes, *_notes(best, asked, len(found))))


def _notes(best: Attempt[Step], asked: SecondBudget, tries: int) -> tuple[str, ...]:
    """Predicted and measured seconds, for the record, and whether they are too many."""
    place = "" if asked.deployment.plain else f" in {asked.deployment.says}"
    predicted = ", ".join(
        f"predicted {cut.plan.predicted:.3f}"
        for cut in best.made.cuts
        if cut.plan.predicted is not None
    )
    again = f", chosen again under {best.asked:.3f}" if best.asked != asked.share else ""
    if tries > 1 and not again:
        again = ", and a second choice more"
    says = f"took {best.took:.3f} of the dense tower's seconds here{place}, {predicted}{again}"
    if best.took <= asked.share * (1 + TOLERANCE):
        return (says,)
    return says, f"latency {asked.share:g} is missed: ask for a little less"
