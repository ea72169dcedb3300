"""How stages run, in words: what they read, what computes them and in which type."""

from collections.abc import Sequence
from typing import TypeAlias

from evaluation.reports.row import Last, Middle, Row

Way: TypeAlias = Row | Middle | Last
"""A stage as a report has it."""
_USUAL = (("torch", "float32"), (None, None))
"""Runtime and type of stages that were told nothing, and of those in older reports."""


def is_usual(stage: Way) -> bool:
    """Whether a stage runs in torch in float32, as far as that is known."""
    return (stage.runtime, stage.dtype) in _USUAL


def runs_in(stage: Way) -> str:
    """Runtime and type; "" where it isn't known."""
    return " ".join(word for word in (stage.runtime, stage.dtype) if word)


def usual(stages: Sequence[Way]) -> list[str]:
    """Sentences in place of columns that would always say the same.

    None of stages in reports from before it was written down.
    """
    if not all(stage.runtime for stage in stages):
        return []
    said = []
    if all(stage.reads == "full" for stage in stages):
        said.append("All stages read files in full.")
    if all(map(is_usual, stages)):
        said.append("All stages run in torch, in float32.")
    return said


def against(full: Row) -> str:
    """What a full tower is that others are measured against."""
    return f"the {full.method} that reads {full.reads}, in {runs_in(full)}"
