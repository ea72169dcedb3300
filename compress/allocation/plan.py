"""From importance to a mask under a budget: what every rule that scores units shares.

Stands between importance and mask. The budget is spent by a global ranking of the scores, as the
same share everywhere, or by measured curves.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

from transformers import PreTrainedModel

from compress.allocation.allocate import Curve, Curves
from compress.allocation.curves import measure_curves
from compress.allocation.head_dim_curves import measure_dim_curves
from compress.budgets.budgets import Budget, SecondBudget
from compress.budgets.prices import Prices, prices_of
from compress.calibrating.importance import Importance
from compress.calibrating.moments import Moments
from compress.calibrating.subject import Subject
from compress.choices import Allocation, Spending
from compress.errors import UserError
from compress.solving.head_dims import Rotated, rotate_tower, turn
from pruning_mechanism import Mask, Tower
from pruning_mechanism.costs.latency import LatencyTable
from pruning_mechanism.deployed.seconds import measure


@dataclass(frozen=True)
class Scored:
    """The importance of a tower's units, and the key that it was made under."""

    importance: Importance
    key: Hashable


@dataclass(frozen=True)
class Plan:
    """What a rule decided for one tower, and what it was decided by.

    `turned` is the tower's model in the coordinates that the mask's head dimensions are of; None:
    as it was loaded.
    """

    mask: Mask
    curves: Sequence[Curve] = ()
    table: LatencyTable | None = None
    turned: PreTrainedModel | None = None

    @property
    def predicted(self) -> float | None:
        """The share of the dense tower's seconds that the table says, if there is one."""
        if self.table is None:
            return None
        mask = self.mask.tensors
        names = [name for name in ("heads", "neurons", "qk_dims", "value_dims") if name in mask]
        return self.table.tower(*(mask[name].sum(1).tolist() for name in names)) / self.table.dense


class Select(Protocol):
    """A rule's own choice of units: its public `select`."""

    def __call__(
        self,
        importance: Importance,
        budget: Prices,
        /,
        *,
        allocate: Allocation,
        curves: Curves | None,
    ) -> Mask:
        """The mask under a budget, spread as `allocate` says."""


def plan_of(
    subject: Subject, scored: Scored, budget: Budget, spending: Spending, select: Select
) -> Plan:
    """The mask that a rule selects under a budget.

    Args:
        subject: the tower and its calibration sample.
        scored: the importance of all units.
        budget: what may be spent.
        spending: how it is spread, and what may go.
        select: the rule's choice.

    Raises:
        UserError: the budget can't be met, or not by this allocation.
    """
    table = None
    if isinstance(budget, SecondBudget):
        table = _measured(subject, budget, spending)
        if spending.allocate == "scores":
            raise UserError("a budget in seconds is allocated by curves or uniform, not by scores")
    prices = prices_of(budget, subject.model.config, subject.kind, table)
    if spending.allocate != "curves":
        mask = select(scored.importance, prices, allocate=spending.allocate, curves=None)
        return Plan(mask, table=table)
    start = starting_curves(subject, scored, spending)
    measured = [*start.curves, *start.dims]
    round_to = spending.round_to or (table.preferred_multiple if table else 1)
    curves = Curves(measured, round_to, spending.structures)
    mask = select(scored.importance, prices, allocate="curves", curves=curves)
    return Plan(mask, measured, table, start.turned)


def _measured(subject: Subject, budget: SecondBudget, spending: Spending) -> LatencyTable:
    """What the parts of a tower take where the result will run, measured once."""
    size, tower = spending.batch_size, subject.deployed(budget.deployment)
    alone = subject.tower.reads_class_token and not spending.aligned
    key = ("latency", size, budget.deployment, alone)
    return subject.once(key, lambda: measure(tower, size, class_token=alone))


@dataclass(frozen=True)
class Start:
    """What an allocation by curves starts from.

    `tower` is the one that is cut in the coordinates that it is cut in, `turned` the model that it
    is one of if these aren't those of the checkpoint, `curves` those of its units, `dims` those of
    its head dimensions.
    """

    tower: Tower
    curves: Sequence[Curve]
    turned: PreTrainedModel | None = None
    dims: Sequence[Curve] = ()


def starting_curves(subject: Subject, scored: Scored, spending: Spending) -> Start:
    """The curves of a tower, and its heads turned if their dimensions may go.

    Turning heads changes no curve of theirs as a whole: these are the checkpoint's own.
    """
    few = subject.calibration.first(spending.curve_samples)
    units = frozenset(spending.structures) - {"head_dims"}
    importance = scored.importance
    curves = subject.once(
        ("curves", scored.key, units, len(few)),
        lambda: measure_curves(subject.tower, importance, subject.moments(), few, "curves", units),
    )
    if "head_dims" not in spending.structures:
        return Start(subject.tower, curves)
    some = subject.calibration.first(spending.turn_samples)
    rotated = subject.once(
        ("rotated", len(some)),
        lambda: rotate_tower(subject.tower, some.batches("turn"), subject.weights()),
    )
    dims = subject.once(
        ("head sizes", len(some), len(few)),
        lambda: measure_dim_curves(
            rotated.tower, _turned(subject.moments(), rotated), few, subject.weights(), "head sizes"
        ),
    )
    return Start(rotated.tower, curves, rotated.tower.model, dims)


def _turned(moments: Sequence[Moments], rotated: Rotated) -> list[Moments]:
    """The moments of a turned tower's sublayers, attention and MLP by turns."""
    turned = list(moments)
    turned[::2] = map(turn, moments[::2], rotated.value_bases)
    return turned
