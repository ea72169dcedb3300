"""Hits as a table with paths to click on, as lines of JSON, or as a page of thumbnails."""

import base64
import html
import io
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.style import Style
from rich.table import Table
from rich.text import Text

from cascade.answers import NOTHING_MATCHES, Answer, Found
from cascade.photos.addresses import FileAddress, address_of
from cascade.storing.rows import ImageRow
from commands.screen import printable

_THUMBNAIL = 256
_PAGE = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root {{ color-scheme: light dark; font-family: sans-serif }}
main {{ display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(14rem, 1fr)) }}
figure {{ margin: 0 }} img {{ width: 100%; height: 14rem; object-fit: contain }}
figcaption {{ font-size: .8rem; overflow-wrap: anywhere }}
</style><h1>{title}</h1><main>
{figures}
</main></html>
"""


def table(hits: Sequence[Found], title: str | None) -> Table:
    """A row for each hit; in a terminal its path opens the photo."""
    rated = any(hit.probability is not None for hit in hits)
    titles = ["", "score", "stage", *["in top k"] * rated]
    found = Table(*titles, "photo", title=title and printable(title))
    for column in found.columns[:-1]:
        column.justify = "right"
    found.columns[-1].overflow = "fold"
    for rank, hit in enumerate(hits, start=1):
        link = None if hit.row is None else file_uri(hit.row)
        path = Text(printable(hit.key), Style(link=link) if link else "")
        chance = [_percent(hit.probability)] if rated else []
        found.add_row(str(rank), f"{hit.score:.3f}", str(hit.stage + 1), *chance, path)
    return found


def _percent(probability: float | None) -> str:
    """The chance that a hit is among the full tower's own k best."""
    return "" if probability is None else f"{probability:.0%}"


def json_line(answer: Answer, rank: int, hit: Found) -> str:
    """A hit of an answer as one line; `stage` counts from 0, as in a program."""
    entry = {
        "query": answer.query,
        "rank": rank,
        "key": hit.key,
        "score": hit.score,
        "stage": hit.stage,
        "probability": hit.probability,
        "matches": answer.matches,
        "uri": None if hit.row is None else hit.row.uri,
    }
    return json.dumps(entry, ensure_ascii=False)


def file_uri(row: ImageRow) -> str | None:
    """The address of the file that a photo is, or lies in; None: it is in no file."""
    try:
        address = address_of(row.uri)
    except ValueError:  # a plain path, as of images that a program has added
        return Path(row.uri).absolute().as_uri()
    if not isinstance(address, FileAddress):
        return None
    return row.uri.partition("?")[0].partition("#")[0]


def contact_sheet(answers: Sequence[Answer]) -> Path:
    """Write a page of thumbnails into the directory for temporary files; it loads nothing else."""
    figures = []
    for answer in answers:
        if len(answers) > 1:
            figures.append(f'<h2 style="grid-column: 1 / -1">{_escaped(answer.query)}</h2>')
        if answer.matches is False:
            figures.append(f'<p style="grid-column: 1 / -1">{NOTHING_MATCHES}</p>')
        figures += [_figure(rank, hit) for rank, hit in enumerate(answer.hits, start=1)]
    title = _escaped(answers[0].query if len(answers) == 1 else f"{len(answers)} queries")
    handle, name = tempfile.mkstemp(prefix="clip-cascade-", suffix=".html")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(_PAGE.format(title=title, figures="\n".join(figures)))
    return Path(name)


def _figure(rank: int, hit: Found) -> str:
    row = hit.row
    caption = f"{rank}. {_escaped(hit.key)}<br>{hit.score:.3f}"
    link = None if row is None else file_uri(row)
    picture = "" if row is None else _picture(row)
    if link:
        picture = f'<a href="{html.escape(link)}">{picture}</a>'
    return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"


def _picture(row: ImageRow) -> str:
    """A thumbnail as a part of the page, or why there is none."""
    # what decodes is imported for a page only: a table comes without it
    from cascade.photos.opening import opened
    from cascade.stages.images import UnreadableImage, open_image

    try:
        image = open_image(opened(row), at_least=_THUMBNAIL)
    except UnreadableImage as error:
        return _escaped(error)
    image.thumbnail((2 * _THUMBNAIL, 2 * _THUMBNAIL))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    content = base64.b64encode(stream.getvalue()).decode("ascii")
    return f'<img alt="{_escaped(row.key)}" src="data:image/jpeg;base64,{content}">'


def _escaped(text: object) -> str:
    return html.escape(printable(text))
