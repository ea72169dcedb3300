"""Several seeds as tables, for the terminal and for Markdown: this module only formats.

In the terminal half widths stand under their means.
"""

from collections.abc import Callable

from rich.box import SIMPLE_HEAD
from rich.table import Table

from evaluation.reports.seeds.report import SeedsReport, SeedsRow, Spread
from evaluation.reports.table import NOTHING, github_table


def terminal(summary: SeedsReport) -> Table:
    """The summary as a `rich` table, readable at 120 columns."""
    shown = Table(
        title=_title(summary),
        caption=_caption(summary),
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
    )
    columns = _columns(summary)
    for place, header in enumerate(columns):
        numeric = place >= 2
        shown.add_column(header, justify="right" if numeric else "left", no_wrap=numeric)
    for row in summary.rows:
        shown.add_row(*(cell(row) for cell in columns.values()))
    return shown


def markdown(summary: SeedsReport) -> str:
    """The summary as GitHub tables, ending with a newline.

    For each kind of constraint one of the first stages alone, methods against constraints; then one
    of everything with its intervals, and a line of explanation below.
    """
    columns = _columns(summary)
    rows = [[cell(row) for cell in columns.values()] for row in summary.rows]
    whole = github_table(list(columns), rows)
    return f"{overviews(summary)}{whole}\n{_title(summary)}.\n{_caption(summary)}.\n"


def overviews(summary: SeedsReport) -> str:
    """Methods against constraints, a table for each kind of constraint, each with a blank line.

    A cell has agreement@10 and 1 - cos of the first stage alone, and where there is a reference the
    drop in agreement as a share of its drop; means over the seeds.
    """
    by_kind: dict[str | None, dict[str, dict[str, SeedsRow]]] = {}
    for row in summary.rows[1:]:
        methods = by_kind.setdefault(row.constraint_kind, {})
        methods.setdefault(row.method, {})[row.constraint] = row
    says = "First stage alone: agreement@10 in % / 1 - cos"
    if any(row.agreement_drop_ratio for row in summary.rows):
        says += f" / drop in agreement as a share of {summary.reference}'s"
    return f"{says}; means over the seeds.\n\n" + "".join(map(_overview, by_kind.values()))


def _overview(methods: dict[str, dict[str, SeedsRow]]) -> str:
    values = {name: row.constraint_value for rows in methods.values() for name, row in rows.items()}
    constraints = sorted(values, key=lambda name: values[name] or 0.0)
    lines = [
        [method, *(_overview_cell(rows.get(name)) for name in constraints)]
        for method, rows in methods.items()
    ]
    return github_table(["method", *constraints], lines, texts=(0,)) + "\n"


def _overview_cell(row: SeedsRow | None) -> str:
    if row is None:
        return NOTHING
    cells = [f"{row.agreement.mean:.1f}"]
    if row.one_minus_cosine:
        cells.append(_two_digits(row.one_minus_cosine.mean))
    if row.agreement_drop_ratio:
        cells.append(f"{row.agreement_drop_ratio.mean:.2f}")
    return " / ".join(cells)


def _two_digits(number: float) -> str:
    """Two significant digits, at most four decimals."""
    return f"{number:#.2g}" if number >= 0.001 else f"{number:.4f}"


def _title(summary: SeedsReport) -> str:
    seeds = ", ".join(map(str, summary.seeds))
    return f"{summary.title}, {summary.candidates}, seeds {seeds}"


def _caption(summary: SeedsReport) -> str:
    ratios = any(row.agreement_drop_ratio or row.cosine_ratio for row in summary.rows)
    compared = f"; ratios to {summary.reference} under the same constraint and seed"
    return (
        "mean ± half the width of the 95 % t interval over the seeds"
        f"{compared if ratios else ''}\n"
        f"calibrated on {'; '.join(summary.calibration)}\n"
        f"seconds on {'; '.join(summary.machines)}"
    )


def _columns(summary: SeedsReport) -> dict[str, Callable[[SeedsRow], str]]:
    """What each column shows of a row, by its header; those that show nothing are left out."""
    columns: dict[str, Callable[[SeedsRow], str]] = {
        "method": lambda row: row.method,
        "constraint": lambda row: row.constraint,
        **{f"R@{k}\nalone": _recall(k) for k in _depths(summary.rows[0])},
        "agreement@10\nalone": lambda row: _shown(row.agreement, 1),
        "1 - cos\nalone": lambda row: _shown(row.one_minus_cosine, 4),
        "agreement@10\ncascade": lambda row: _shown(row.cascade_agreement, 1),
        "seconds to\ncompress": lambda row: _shown(row.compression_seconds, 1),
        "drop in\nagreement\nratio": lambda row: _shown(row.agreement_drop_ratio, 2),
        "1 - cos\nratio": lambda row: _shown(row.cosine_ratio, 3),
    }
    return {
        header: cell
        for header, cell in columns.items()
        if any(cell(row) != NOTHING for row in summary.rows)
    }


def _recall(k: int) -> Callable[[SeedsRow], str]:
    return lambda row: _shown(row.recall[k], 1)


def _depths(row: SeedsRow) -> list[int]:
    """The first and the last k of Recall@k; those between are in the JSON."""
    ks = sorted(row.recall)
    return list(dict.fromkeys([ks[0], ks[-1]]))


def _shown(spread: Spread | None, digits: int) -> str:
    if spread is None:
        return NOTHING
    return f"{spread.mean:.{digits}f}\n± {spread.half_width:.{digits}f}"
