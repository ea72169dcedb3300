"""How a search went: what each stage ranked, what it encoded now, milliseconds of each step."""

import os
from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.table import Table

from cascade.collection import Collection
from cascade.steps import Step
from commands.screen import printable

_SHOWN = 3


def explained(
    steps: Sequence[Step], collection: Collection, opening: float, embedding: float
) -> Iterator[RenderableType]:
    """A table of the stages and a line of the other steps, for one query.

    Args:
        steps: what each stage did.
        collection: what was searched.
        opening: seconds to open the collection.
        embedding: seconds to embed the query, with the time to load what does.
    """
    table = Table("stage", "ranked", "encoded now", "encoding ms", "ranking ms", "first")
    for column in table.columns[:5]:
        column.justify = "right"
    for step in steps:
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
    yield (
        f"opening the collection {1000 * opening:.1f} ms, embedding the query "
        f"{1000 * embedding:.1f} ms; {len(collection):,} photos"
    )
