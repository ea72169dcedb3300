"""Searching a collection from a terminal: by words, by example, by both, minus something.

python -m cascade.search photos.cascade "two dogs on a beach" -k 10
"""

import time
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from cascade.terminal.command import run_command
from commands.errors import UsageError
from commands.flags import ConfigOption, Count, NotSplit, Positional, ReadPath
from commands.run import main_of


@dataclass(frozen=True)
class SearchOptions(ConfigOption):
    """Find photos of a collection by words, by an example, or by both.

    Example: python -m cascade.search photos.cascade "two dogs on a beach" -k 10
    """

    collection: Positional[Annotated[ReadPath, tyro.conf.arg(metavar="COLLECTION")]] = Path(
        "photos.cascade"
    )
    """the collection, as cascade.index made it"""
    text: Positional[Annotated[str, tyro.conf.arg(metavar="TEXT")]] = ""
    """what is in the photo"""
    k: Annotated[Count, tyro.conf.arg(aliases=["-k"])] = 10
    """how many photos to show"""
    like: tuple[ReadPath, ...] = ()
    """images that it is like; with a text, both count"""
    without: NotSplit[tuple[str, ...]] = ()
    """what is not in it"""
    queries: ReadPath | None = None
    """file of queries, one a line, in place of a text"""
    m: Count | None = None
    """candidates that the last stage looks at, other than the collection's own"""
    refined: bool = False
    """let the last stage also rank whatever else it has encoded so far"""
    json: bool = False
    """print a line of JSON for each photo"""
    open: bool = False
    """write a page of thumbnails and open it in a browser"""
    explain: bool = False
    """say what each stage ranked, what it encoded now, and how long each step took"""
    device: str = "cpu"
    """where the towers run: cpu, cuda, mps"""

    exclusive: ClassVar = (("queries", "like"), ("queries", "without"))

    def check(self) -> None:
        """Raise `UsageError` unless something is looked for."""
        super().check()
        if self.queries is not None and self.text:
            raise UsageError("a text and --queries exclude each other: pass only one of them")
        if self.queries is None and not self.text.strip() and not self.like:
            raise UsageError(
                'say what to look for: a text, as in cascade.search photos.cascade "two dogs", '
                "--like FILE, or --queries FILE"
            )


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("cascade.search"), SearchOptions, "cascade.search")

from torch import Tensor

from cascade.cascade import Hit
from cascade.collection import Collection
from cascade.queries import Query, embedded
from cascade.steps import Step
from cascade.terminal.explained import explained
from cascade.terminal.hits import contact_sheet, json_line, table
from commands.screen import console, printable


def main(options: SearchOptions) -> None:
    """Search and show."""
    queries = _queries(options)
    begun = time.perf_counter()
    m = None if options.m is None else [options.m]
    with Collection.open(options.collection, m=m, device=options.device) as collection:
        opened = time.perf_counter() - begun
        if not len(collection):
            raise UsageError(
                f"{options.collection} holds no photos yet: add some with cascade.index"
            )
        results = []
        for name, query in queries.items():
            hits = _searched(collection, query, name, options, opened)
            results.append((name, hits))
        if options.open:
            sheet = contact_sheet(results, collection)
            console().print(f"wrote {sheet}")
            webbrowser.open(sheet.as_uri())


def _searched(
    collection: Collection, query: Query, name: str, options: SearchOptions, opened: float
) -> Sequence[Hit]:
    """The hits of one query, which are shown."""
    steps: list[Step] = []
    begun = time.perf_counter()
    vectors = _embedded(collection, query)
    embedding = time.perf_counter() - begun
    (hits,) = collection.search_embeddings(vectors, options.k, options.refined, steps.append)
    screen = console()
    if options.json:
        for rank, hit in enumerate(hits, start=1):
            print(json_line(name, rank, hit, collection.row(str(hit.key))))
    else:
        screen.print(table(hits, collection, name if options.queries else None))
    if options.explain:
        screen = console(to_error=options.json)
        for part in explained(steps, collection, opened, embedding):
            screen.print(part)
    return hits


def _embedded(collection: Collection, query: Query) -> list[Tensor]:
    try:
        return embedded(collection, query)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _queries(options: SearchOptions) -> dict[str, Query]:
    """What to look for, by what it is called.

    Raises:
        UsageError: the file of queries can't be read or holds none, or an example isn't there.
    """
    if options.queries is not None:
        try:
            lines = options.queries.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise UsageError(f"--queries {options.queries}: isn't UTF-8 text") from error
        texts = [line.strip() for line in lines if line.strip()]
        if not texts:
            raise UsageError(f"--queries {options.queries}: no queries in it, one a line is needed")
        return {text: Query([text]) for text in texts}
    for path in options.like:
        if not path.is_file():
            raise UsageError(f"--like {printable(path)}: there is no such file")
    texts = [options.text] if options.text.strip() else []
    name = " + ".join([*texts, *(f"like {path}" for path in options.like)])
    name += "".join(f" - {text}" for text in options.without)
    return {name: Query(texts, list(options.like), list(options.without))}
