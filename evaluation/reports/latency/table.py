"""A latency report as a table, for the terminal and for Markdown: formats and computes nothing.

A row for each model and batch size, as model families are published: parameters image + text,
milliseconds of an image and of a text with their quartiles, scores with their intervals.
"""

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.table import Table

from evaluation.measuring.values import Timing
from evaluation.reports.latency.report import Latency, ModelRow, Side
from evaluation.reports.table import NOTHING, github_table, magnitude, three_digits, with_interval

TITLE = "latency of models: milliseconds for one image or text"


def terminal(report: Latency) -> Table:
    """The report as a `rich` table, readable at 120 columns for up to three scores."""
    shown = Table(
        title=TITLE, caption=caption(report), box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False
    )
    for place, header in enumerate(_headers(report)):
        shown.add_column(
            header, justify="right" if place else "left", no_wrap=bool(place), overflow="fold"
        )
    for row in _rows(report):
        shown.add_row(*row)
    return shown


def markdown(report: Latency) -> str:
    """The report as a GitHub table, with what it shows of what, ending with a newline."""
    headers = [header.replace("\n", " ").replace("param- eters", "parameters")
               for header in _headers(report)]  # fmt: skip
    table = github_table(headers, _rows(report), (0,))
    return f"{TITLE}\n\n{table}\n{caption(report)}\n"


def caption(report: Latency) -> str:
    """What was timed and scored, a line each."""
    intervals = ", 95 % intervals of scores" if report.scored else ""
    lines = [
        f"timed in turn on images and texts of {report.timed_on}",
        f"on {report.machine.summary}",
        "encoder: from ready pixels or tokens",
        f"in brackets: quartiles of milliseconds{intervals}",
    ]
    for scored in report.scored:
        texts = "queries" if scored.measure == "Recall@1" else "classes"
        lines.append(
            f"{scored.label} ({scored.split}): {scored.images:,} images, {scored.texts:,} {texts}"
        )
    lines += [
        f"{model.name} is a vision tower alone, scored with the text tower of {model.borrows}"
        for model in report.models
        if model.borrows
    ]
    if skipped := len(report.skipped):
        lines.append(f"{skipped} unreadable image{'s' if skipped > 1 else ''} skipped")
    return "\n".join(lines)


def _headers(report: Latency) -> tuple[str, ...]:
    return (
        "model", "param-\neters\nimage\n+ text", "MACs of\nan image", "batch",
        "ms/image\nencoder", "ms/image\nfrom bytes", "ms/text\nencoder",
        *(f"{scored.measure}\n{_broken(scored.name)}" for scored in report.scored),
    )  # fmt: skip


def _broken(name: str) -> str:
    """The name of a task in lines of a few letters, as far as it has spaces."""
    return name.replace(": ", ":\n")


def _rows(report: Latency) -> Iterator[tuple[str, ...]]:
    for model in report.models:
        for place, batch in enumerate(report.batches):
            image = model.image.timed[place]
            yield (
                *(_own(model) if place == 0 else ("", "", "")),
                str(batch),
                _milliseconds(image.encoder),
                _milliseconds(image.end_to_end),
                _text(model.text, place),
                *(with_interval(score) if place == 0 else "" for score in model.scores),
            )


def _own(model: ModelRow) -> tuple[str, str, str]:
    """What a model has whatever the batch: name, parameters, MACs."""
    text = magnitude(model.text.parameters) if model.text else NOTHING
    return model.name, f"{magnitude(model.image.parameters)}\n+ {text}", magnitude(model.tower_macs)


def _text(side: Side | None, place: int) -> str:
    return _milliseconds(side.timed[place].encoder) if side else NOTHING


def _milliseconds(timing: Timing) -> str:
    median, low, high = (
        three_digits(1000 * seconds)
        for seconds in (timing.median, timing.lower_quartile, timing.upper_quartile)
    )
    return f"{median}\n({low}–{high})"
