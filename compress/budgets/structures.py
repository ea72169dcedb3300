"""Which structures of a tower may go, and which sizes that leaves a sublayer to choose from.

Stands between options and allocation: curves are measured at, and allocations choose from, the
sizes allowed here.
"""

from collections.abc import Collection

import numpy as np

from compress.budgets.budgets import Budget, HeadBudget, SecondBudget, check_heads
from compress.budgets.prices import Sizes
from compress.choices import Structure
from compress.errors import UserError
from pruning_mechanism import Shape, TowerKind
from pruning_mechanism.costs.latency_sizes import measured_head_sizes
from pruning_mechanism.protocols import Config

DIM_SHARES = (1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1)
"""Shares of a head's dimensions at which their curves are measured.

None below an eighth: there layers together lose more than the sum of what they lose alone.
"""


def allowed(structures: Collection[Structure], kind: str, units: int, sizes: Sizes) -> Sizes:
    """Those of a sublayer's sizes that it may keep, ascending.

    All units may always stay; none may if sublayers may go, and some if units of the `kind` may.
    """
    sizes = np.unique(sizes)
    fine = sizes == units
    if "sublayers" in structures:
        fine |= sizes == 0
    if kind in structures:
        fine |= sizes > 0
    found: Sizes = sizes[fine]
    return found


def dim_sizes(head_dim: int) -> Sizes:
    """The sizes of queries and keys, or of values, that are measured, ascending."""
    return np.array(measured_head_sizes(head_dim, DIM_SHARES))


def check_reach(
    structures: Collection[Structure],
    budget: Budget,
    config: Config,
    tower: TowerKind = "vision",
) -> None:
    """Raise `UserError` if what may go is too little to meet a budget.

    What can be met in seconds is known only once they are measured.
    """
    if isinstance(budget, SecondBudget):
        return
    if isinstance(budget, HeadBudget):
        check_heads(budget.heads, config, tower)
    shape = Shape.of(config, dense=True, tower=tower)
    heads, neurons = (
        int(allowed(structures, kind, units, np.array([0, 1, units]))[0])
        for kind, units in (("heads", shape.heads[0]), ("neurons", shape.neurons[0]))
    )
    layers, names = len(shape.heads), f"structures {','.join(structures)}"
    if isinstance(budget, HeadBudget):
        if layers * heads > sum(shape.heads) - budget.heads:
            raise UserError(
                f"{budget.setting.label}: with {names} at least {layers * heads} heads of the "
                f"{tower} tower stay; allow more structures"
            )
        return
    size = int(dim_sizes(shape.head_dim)[0]) if "head_dims" in structures else shape.head_dim
    least = shape.keep([heads] * layers, [neurons] * layers, [size] * layers, [size] * layers)
    if least.encoder_macs > shape.budget(budget.share):
        raise UserError(
            f"{budget.setting.label}: with {names} at least "
            f"{least.encoder_macs / shape.encoder_macs:.3f} of the {tower} tower's MACs stay; "
            "allow more structures"
        )
