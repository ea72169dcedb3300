"""Settings: how a result is called and asked for, as `MAC 0.3`, `22 heads`, `r 8`.

A setting is a name and nothing else. What may be spent under it is a budget
(`compress.budgets.budgets`), or a number that its rule alone understands.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Setting:
    """One value that a rule was asked for, `kind` being the word that it is called by."""

    kind: str
    value: float | None = None

    @property
    def label(self) -> str:
        """How reports name it."""
        if self.value is None:
            return self.kind
        if self.kind == "heads":
            return f"{int(self.value)} heads"
        return f"{self.kind} {self.value:g}"

    @property
    def slug(self) -> str:
        """How directories name it."""
        return self.label.replace(" ", "-").lower()
