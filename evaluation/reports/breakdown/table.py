"""A breakdown as tables, for the terminal and for Markdown: formats and computes nothing.

One table of milliseconds by step, one of what is gained end to end with encoder-only beside it.
"""

from collections.abc import Callable, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from evaluation.measuring.values import Interval
from evaluation.reports.breakdown.report import STEPS, Breakdown, Way
from evaluation.reports.table import NOTHING, github_table, magnitude, three_digits

Columns = Sequence[tuple[str, Callable[[Way], str]]]
_TEXTS = 2
"""How many columns from the left hold text."""


def terminal(report: Breakdown) -> list[Table]:
    """The tables as `rich` has them, readable at 120 columns."""
    tables = []
    for title, columns, caption in _tables(report):
        shown = Table(
            title=title, caption=caption, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False
        )
        for place, (header, _) in enumerate(columns):
            numeric = place >= _TEXTS
            shown.add_column(
                header,
                justify="right" if numeric else "left",
                no_wrap=numeric,
                overflow="fold",
            )
        for way in report.ways:
            shown.add_row(*(cell(way) for _, cell in columns))
        tables.append(shown)
    return tables


def markdown(report: Breakdown) -> str:
    """The tables as GitHub has them, with what was timed where, ending with a newline."""
    parts = []
    for title, columns, caption in _tables(report):
        headers = [header.replace("\n", " ") for header, _ in columns]
        rows = [[cell(way) for _, cell in columns] for way in report.ways]
        parts.append(f"{title}\n\n{github_table(headers, rows, range(_TEXTS))}\n{caption}\n")
    return "\n".join(parts)


def _tables(report: Breakdown) -> list[tuple[str, Columns, str]]:
    """Title, columns and caption of each."""
    seconds = [
        f"{report.files.described}, from a warm page cache",
        f"on {report.machine.summary}; batch {report.batch}",
        "steps: medians of each alone; end to end: as it runs (quartiles)",
        "overlap: the slower of encode and all before it / end to end",
    ]
    if skipped := len(report.skipped):
        seconds.append(f"{skipped} unreadable photograph{'s' if skipped > 1 else ''} skipped")
    tables = [("milliseconds for one image", _seconds(report), "\n".join(seconds))]
    if any(way.faster or way.lifetime for way in report.ways):
        tables.append(
            (
                f"times faster, end to end (encoder only); lifetime speedup at f = {report.f:g}",
                _gains(report),
                "\n".join(_cascades(report)),
            )
        )
    return tables


def _cascades(report: Breakdown) -> list[str]:
    """What the second table is of."""
    lasts = dict.fromkeys(way.lifetime.last for way in report.ways if way.lifetime)
    lines = [f"last stage: {', '.join(lasts)}"] if lasts else []
    return [*lines, "plain: transformers on fully decoded pictures, float32"]


def _named(report: Breakdown) -> Columns:
    several = len(report.threads) > 1
    threads = [("threads", lambda way: str(way.threads))] if several else []
    return [("way", lambda way: way.name), ("role", lambda way: way.role), *threads]


def _seconds(report: Breakdown) -> Columns:
    def step(place: int) -> Callable[[Way], str]:
        return lambda way: three_digits(1000 * way.split.medians[place])

    return [
        *_named(report),
        ("reads", lambda way: way.reads),
        ("runtime", lambda way: f"{way.runtime}\n{way.dtype}"),
        *((name, step(place)) for place, name in enumerate(STEPS)),
        ("end to end", _end_to_end),
        ("overlap", lambda way: f"{way.overlap:.2f}"),
        ("bytes\nread", lambda way: magnitude(round(way.nbytes))),
    ]


def _gains(report: Breakdown) -> Columns:
    return [
        *_named(report),
        ("than plain", lambda way: _times(way.faster, way.faster_encoder)),
        ("lifetime,\nagainst plain", _against_plain),
        ("lifetime, against\nthe last stage", _against_last),
    ]


def _against_plain(way: Way) -> str:
    life = way.lifetime
    return _times(life.plain, life.plain_encoder) if life else NOTHING


def _against_last(way: Way) -> str:
    return _times(way.lifetime.same, way.lifetime.encoder) if way.lifetime else NOTHING


def _times(whole: Interval | None, encoder: Interval | None) -> str:
    """End to end, and encoder only in brackets."""
    if whole is None or encoder is None:
        return NOTHING
    return f"{three_digits(whole.value)} ({three_digits(encoder.value)})"


def _end_to_end(way: Way) -> str:
    median, low, high = (
        three_digits(1000 * seconds)
        for seconds in (
            way.end_to_end.median,
            way.end_to_end.lower_quartile,
            way.end_to_end.upper_quartile,
        )
    )
    return f"{median}\n({low}–{high})"
