"""What a search of `compress.joint` looks for."""

from dataclasses import dataclass, field

from compress.budgets.budgets import MacBudget, SecondBudget
from compress.choices import Deployment, Finish, Thoroughness


@dataclass(frozen=True)
class Search:
    """What is looked for, and how thoroughly.

    `finish` is what is done to what is found; `forgetting`: nothing is kept for further budgets.
    """

    budget: MacBudget | SecondBudget
    thoroughness: Thoroughness
    finish: Finish = field(default_factory=lambda: Finish(align="ridge"))
    forgetting: bool = False

    @property
    def label(self) -> str:
        """How messages call it."""
        return self.budget.setting.label

    @property
    def deployment(self) -> Deployment:
        """What seconds are those of."""
        return self.budget.deployment if isinstance(self.budget, SecondBudget) else Deployment()
