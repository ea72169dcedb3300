"""Budgets: what a smaller tower may spend, in MACs, in measured seconds or in heads."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from compress.budgets.settings import Setting
from compress.choices import Deployment
from compress.errors import UserError

if TYPE_CHECKING:
    from pruning_mechanism import TowerKind
    from pruning_mechanism.protocols import Config


@dataclass(frozen=True)
class MacBudget:
    """A share of the dense encoder layers' MACs, in (0, 1].

    Raises:
        UserError: the share is out of this range.
    """

    share: float

    def __post_init__(self) -> None:
        check_share(self.share, "MAC")

    @property
    def setting(self) -> Setting:
        """How results under it are called."""
        return Setting("MAC", self.share)


@dataclass(frozen=True)
class SecondBudget:
    """A share of the dense tower's measured seconds, in (0, 1]; both run in one `deployment`.

    Raises:
        UserError: the share is out of this range.
    """

    share: float
    deployment: Deployment = field(default_factory=Deployment)

    def __post_init__(self) -> None:
        check_share(self.share, "latency")

    @property
    def setting(self) -> Setting:
        """How results under it are called."""
        return Setting("latency", self.share)


@dataclass(frozen=True)
class FileBudget(SecondBudget):
    """A share of the full tower's measured seconds from file to embedding, in (0, 1].

    Raises:
        UserError: the share is out of this range.
    """

    @property
    def setting(self) -> Setting:
        """How results under it are called."""
        return Setting("file-latency", self.share)


@dataclass(frozen=True)
class HeadBudget:
    """A number of heads that go; every neuron stays."""

    heads: int

    @property
    def setting(self) -> Setting:
        """How results under it are called."""
        return Setting("heads", self.heads)


Budget = MacBudget | SecondBudget | HeadBudget


def by_setting(budgets: Iterable[Budget]) -> dict[Setting, Budget]:
    """Budgets by how their results are called, each once."""
    return {budget.setting: budget for budget in budgets}


def check_share(share: float, kind: str) -> None:
    """Raise `UserError` unless a share is in (0, 1]."""
    if not 0 < share <= 1:
        raise UserError(f"a {kind} constraint must be in (0, 1], found {share}")


def check_heads(heads: int, config: "Config", tower: "TowerKind" = "vision") -> None:
    """Raise `UserError` unless the tower has that many heads to give up."""
    from pruning_mechanism import Mask  # costly, and options need only the classes above

    available = Mask.dense(config, tower).heads.numel()
    if not 0 <= heads <= available:
        raise UserError(f"{heads} heads can't go: the {tower} tower has {available}")
