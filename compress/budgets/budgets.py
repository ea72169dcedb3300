"""Budgets: what a smaller tower may spend, in MACs, in measured seconds or in heads."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from compress.budgets.settings import Setting
from compress.errors import UserError

if TYPE_CHECKING:
    from pruning_mechanism import TowerKind


@dataclass(frozen=True)
class MacBudget:
    """A share of the dense encoder layers' MACs, in (0, 1].

    Raises:
        UserError: the share is out of this range.
    """

    share: float

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UserError(f"a MAC constraint must be in (0, 1], found {self.share}")

    @property
    def setting(self) -> Setting:
        """How results under it are called."""
        return Setting("MAC", self.share)

    def check(self, config: object, tower: "TowerKind" = "vision") -> None:
        """Every tower can keep a share of its MACs; `structures.check_reach` knows which."""


@dataclass(frozen=True)
class SecondBudget:
    """A share of the dense tower's measured seconds, in (0, 1].

    Raises:
        UserError: the share is out of this range.
    """

    share: float

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UserError(f"a latency constraint must be in (0, 1], found {self.share}")

    @property
    def setting(self) -> Setting:
        """How results under it are called."""
        return Setting("latency", self.share)

    def check(self, config: object, tower: "TowerKind" = "vision") -> None:
        """What it allows is known only once seconds are measured."""


@dataclass(frozen=True)
class HeadBudget:
    """A number of heads that go; every neuron stays."""

    heads: int

    @property
    def setting(self) -> Setting:
        """How results under it are called."""
        return Setting("heads", self.heads)

    def check(self, config: object, tower: "TowerKind" = "vision") -> None:
        """Raise `UserError` unless the tower has that many heads."""
        check_heads(self.heads, config, tower)


Budget = MacBudget | SecondBudget | HeadBudget


def check_heads(heads: int, config: object, tower: "TowerKind" = "vision") -> None:
    """Raise `UserError` unless the tower has that many heads to give up."""
    from pruning_mechanism import Mask  # costly, and options need only the classes above

    available = Mask.dense(config, tower).heads.numel()
    if not 0 <= heads <= available:
        raise UserError(f"{heads} heads can't go: the {tower} tower has {available}")
