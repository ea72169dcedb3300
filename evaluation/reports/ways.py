"""How stages run, in words: what they read, what computes them and in which type."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from evaluation.reports.row import ARROW, Last, Middle, Row

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


def told_apart(rows: Sequence[Row]) -> list[str]:
    """What each row's method is called, with what tells it from rows that only run otherwise.

    Rows of one method and constraint differ in what stages read, or in what they run in; a method
    of which any do is named with it in all of its rows.
    """
    alike: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        alike.setdefault((row.method, row.constraint), []).append(row)
    telling: dict[str, set[Callable[[Way], str]]] = {}
    for (method, _), several in alike.items():
        differing = {
            of for of in (_reads, runs_in) if len({_chain(row, of) for row in several}) > 1
        }
        telling.setdefault(method, set()).update(differing)
    return [
        " ".join(
            [
                row.method,
                *(f"({_chain(row, of)})" for of in (_reads, runs_in) if of in telling[row.method]),
            ]
        )
        for row in rows
    ]


def _reads(stage: Way) -> str:
    return stage.reads


def _chain(row: Row, of: Callable[[Way], str]) -> str:
    """What is said of the stages of a row that it holds."""
    return ARROW.join(of(stage) for stage in (row, *row.behind))
