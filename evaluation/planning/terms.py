"""What a plan has to reach, and what it says where it can't."""

from dataclasses import dataclass

from evaluation.planning.certifying import P_VALUES, PValue


class PlanError(ValueError):
    """Why there is no plan: one line that says what was found and what would help."""


@dataclass(frozen=True)
class Terms:
    """What is certified, and how.

    Attributes:
        k: results that are compared.
        agreement: share of the full tower's results that has to be returned on average, in (0, 1).
        confidence: how sure that has to be, in (0, 1).
        test: name of the p-value, a key of `P_VALUES`.
        largest: the largest m to consider.
    """

    k: int
    agreement: float
    confidence: float
    test: str
    largest: int

    @property
    def p_value(self) -> PValue:
        """That of the test."""
        return P_VALUES[self.test]
