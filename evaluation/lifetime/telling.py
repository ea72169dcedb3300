"""The report of a stream of queries as tables."""

from rich.console import Group
from rich.table import Table

from evaluation.reports.stream import Stream

_SHOWN = (1, 10, 100, 1_000, 10_000, 100_000)


def told(report: Stream) -> Group:
    """What each way to choose m costs after 1, 10, 100, … queries, and how reliable hits are."""
    return Group(_costs(report), *_reliabilities(report), _below(report))


def _costs(report: Stream) -> Table:
    table = Table("m", "agreement", "f after", *(f"{shown:,}" for shown in _shown(report)))
    for column in table.columns[3:]:
        column.justify = "right"
    for curve in report.curves:
        name = f"{curve.name}, {curve.m:.1f} on average"
        agreement = "" if curve.agreement is None else f"{curve.agreement:.1%}"
        for title, values, form in (
            ("f", report.shares(curve), "{:.1%}"),
            ("lifetime speedup", report.speedups(curve), "{:.2f}"),
            ("encoder only", report.encoder_speedups(curve), "{:.2f}"),
        ):
            if values is None:
                continue
            by_queries = dict(zip(report.queries, values, strict=True))
            cells = [form.format(by_queries[shown]) for shown in _shown(report)]
            table.add_row(name, agreement, title, *cells)
            name = agreement = ""
    return table


def _shown(report: Stream) -> list[int]:
    return [number for number in _SHOWN if number in report.queries]


def _reliabilities(report: Stream) -> list[Table]:
    tables = []
    for curve in report.curves:
        if curve.calibration_error is None:
            continue
        title = f"{curve.name}: expected calibration error {curve.calibration_error:.2%}"
        table = Table("probability", "hits", "stated", "in the top k", title=title)
        for column in table.columns:
            column.justify = "right"
        for each in curve.reliability:
            bounds = f"{each.low:.1f} to {each.high:.1f}"
            table.add_row(bounds, f"{each.hits:,}", f"{each.stated:.1%}", f"{each.happened:.1%}")
        tables.append(table)
    return tables


def _below(report: Stream) -> str:
    milliseconds = " and ".join(f"{1000 * seconds:.2f}" for seconds in report.seconds)
    encoder = ""
    if report.encoder_seconds is not None:
        alone = " and ".join(f"{1000 * seconds:.2f}" for seconds in report.encoder_seconds)
        encoder = f" ({alone} their encoders)"
    stages = zip(("first stage", "last stage"), report.running, strict=False)
    running = "".join(f"; {name} {how}" for name, how in stages)
    return (
        f"{report.images:,} images, {report.texts:,} texts, Zipf exponent {report.exponent:g}, "
        f"k = {report.k}; {milliseconds} ms per image from the bytes of its file{encoder}"
        f"{running}; {report.machine.summary}"
    )
