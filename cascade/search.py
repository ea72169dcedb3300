"""Searching a collection from a terminal: by words, by example, by both, minus something.

python -m cascade.search photos.cascade "two dogs on a beach" -k 10

Where a server of the collection runs (`cascade.serve`) it answers, and nothing is loaded here.
"""

import time
import webbrowser
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from cascade.answers import NOTHING_MATCHES, Answer, Terms, Wanted
from cascade.inverted.fitting import Index
from cascade.serving.asking import asked
from cascade.terminal.command import run_command
from cascade.terminal.explained import explained
from cascade.terminal.hits import contact_sheet, json_line, table
from cascade.terminal.query_files import queries_in
from commands.errors import UsageError
from commands.flags import Count, CountOrAuto, NotSplit, Positional, ReadPath
from commands.run import main_of
from commands.screen import console, printable
from commands.towers import TowersOptions


@dataclass(frozen=True)
class SearchOptions(TowersOptions):
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
    m: CountOrAuto | None = None
    """candidates that the last stage looks at, other than the collection's own; auto: as many as
    each query needs"""
    refined: bool = False
    """let the last stage also rank whatever else it has encoded so far"""
    json: bool = False
    """print a line of JSON for each photo"""
    open: bool = False
    """write a page of thumbnails and open it in a browser"""
    explain: bool = False
    """say what each stage ranked, what it encoded now, and how long each step took"""
    index: Index = "auto"
    """search the first stage in memory (exact), by its lists on disk (ivf), or as it fits (auto);
    other than auto, in this process"""
    cold: bool = False
    """search in this process, also where a server of the collection runs (cascade.serve)"""

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


_EMPTY = "{} holds no photos yet: add some with cascade.index"


def ask_server(options: SearchOptions) -> bool:
    """Let a server of the collection answer, and show that; False: there is none."""
    if options.cold or options.index != "auto":
        return False
    queries = _queries(options)
    try:
        answers = asked(options.collection, queries, _terms(options), options.device)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if answers is None:
        return False
    if not answers[0].images:
        raise UsageError(_EMPTY.format(options.collection))
    _show(options, iter(answers))
    return True


def _show(options: SearchOptions, answers: Iterator[Answer]) -> None:
    """Print each answer when it comes."""
    shown = []
    for answer in answers:
        screen = console()
        if options.json:
            for rank, hit in enumerate(answer.hits, start=1):
                print(json_line(answer, rank, hit))
        else:
            if answer.matches is False:
                screen.print(f"{NOTHING_MATCHES}:")
            screen.print(table(answer.hits, answer.query if options.queries else None))
        if options.explain:
            screen = console(to_error=options.json)
            for part in explained(answer):
                screen.print(part)
        shown.append(answer)
    if options.open:
        sheet = contact_sheet(shown)
        console().print(f"wrote {sheet}")
        webbrowser.open(sheet.as_uri())


def _terms(options: SearchOptions) -> Terms:
    """How it is searched."""
    m = [options.m] if isinstance(options.m, int) else options.m
    return Terms(options.k, m, options.refined)


def _queries(options: SearchOptions) -> list[Wanted]:
    """What to look for.

    Raises:
        UsageError: the file of queries can't be read or holds none, or an example isn't there.
    """
    if options.queries is not None:
        return [Wanted(text, [text]) for text in dict.fromkeys(queries_in(options.queries))]
    for path in options.like:
        if not path.is_file():
            raise UsageError(f"--like {printable(path)}: there is no such file")
    texts = [options.text] if options.text.strip() else []
    name = " + ".join([*texts, *(f"like {path}" for path in options.like)])
    name += "".join(f" - {text}" for text in options.without)
    like = [str(path.absolute()) for path in options.like]
    return [Wanted(name, texts, like, list(options.without))]


if __name__ == "__main__":  # here, since neither help nor a server's answer needs what follows
    run_command(main_of("cascade.search"), SearchOptions, "cascade.search", instead=ask_server)

from dataclasses import replace

from cascade.collection import Collection
from cascade.queries import answered


def main(options: SearchOptions) -> None:
    """Search in this process and show."""
    queries = _queries(options)
    begun = time.perf_counter()
    with Collection.open(
        options.collection, device=options.device, index=options.index, runtime=options.runtime
    ) as collection:
        opened = time.perf_counter() - begun
        if not len(collection):
            raise UsageError(_EMPTY.format(options.collection))
        _show(options, (_answered(collection, query, options, opened) for query in queries))


def _answered(
    collection: Collection, query: Wanted, options: SearchOptions, opening: float
) -> Answer:
    try:
        return replace(answered(collection, query, _terms(options)), opening=opening)
    except ValueError as error:
        raise UsageError(str(error)) from error
