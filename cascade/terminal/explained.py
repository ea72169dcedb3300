"""How a search went: what each stage ranked, what it encoded now, milliseconds of each step."""

import os
from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Table

from cascade.answers import Answer
from commands.screen import printable

_SHOWN = 3


def explained(answer: Answer) -> Iterator[RenderableType]:
    """A table of the stages and a line of the other steps, for one query."""
    table = Table("stage", "ranked", "encoded now", "encoding ms", "ranking ms", "first")
    for column in table.columns[:5]:
        column.justify = "right"
    for step in answer.steps:
        best = [printable(os.path.basename(str(key))) for key, _ in step.best[0][:_SHOWN]]
        table.add_row(
            str(step.stage + 1),
            f"{step.images:,}",
            f"{step.encoded:,}",
            f"{1000 * step.encoding_seconds:.1f}",
            f"{1000 * step.ranking_seconds:.1f}",
            ", ".join(best),
        )
    yield table
    if answer.steps and answer.steps[0].how:
        yield f"first stage searched: {answer.steps[0].how}"
    yield (
        f"opening the collection {1000 * answer.opening:.1f} ms, embedding the query "
        f"{1000 * answer.embedding:.1f} ms; {answer.images:,} photos"
    )
    if answer.matches is not None:
        yield (
            f"the best score is {'above' if answer.matches else 'below'} what evaluation.plan "
            "--cutoff learnt from queries that something matches"
        )
