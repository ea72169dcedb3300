"""A zero-shot report as tables, for the terminal and for Markdown: formats and computes nothing.

The first has a row for each task and stage. The second, where there are several tasks, has one for
each stage and top-1/top-5 of each task, as small models are published.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.table import Table

from evaluation.reports.row import FULL_TOWER
from evaluation.reports.table import NOTHING, github_table, magnitude, three_digits, with_interval
from evaluation.reports.zero_shot.report import Accuracy, StageCost, ZeroShot

BESIDE = (1, 5)
"""The k of the second table."""


@dataclass(frozen=True)
class Cells:
    """A table: its headers, its rows, and how many columns from the left hold text."""

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: int


def by_task(report: ZeroShot) -> Cells:
    """Top-k accuracies of each stage on each task, alone, and top-1 behind the full tower."""
    ks = sorted({k for task in report.tasks for k in task.full.top})
    headers = (
        "task", "stage", *(f"top-{k}" for k in ks), "mean per\nclass",
        "re-ranked by\nfull tower\n(difference)", "ms/\nimage\n(encoder)",
    )  # fmt: skip
    return Cells(headers, tuple(_task_rows(report, ks)), 2)


def by_stage(report: ZeroShot) -> Cells:
    """Top-1/top-5 of each stage on each task, and what it costs."""
    headers = (
        "stage", "parameters", "MACs", "ms/\nimage\n(encoder)",
        *(f"{task.name}\n({len(task.classes)} classes)" for task in report.tasks),
    )  # fmt: skip
    rows = []
    for number, cost in enumerate(report.stages):
        accuracies = [(task.full, *task.stages)[number] for task in report.tasks]
        several = tuple("/".join(_top(accuracy, k) for k in BESIDE) for accuracy in accuracies)
        costs = (magnitude(cost.parameters), magnitude(cost.tower_macs), _milliseconds(cost))
        rows.append((_called(report, number), *costs, *several))
    return Cells(headers, tuple(rows), 1)


def terminal(report: ZeroShot) -> list[Table]:
    """The report as `rich` tables, readable at 120 columns for up to five k or tasks."""
    tables = [_shown(by_task(report), title(report), caption(report))]
    if len(report.tasks) > 1:
        tables.append(_shown(by_stage(report), "top-1/top-5 accuracy in percent", ""))
    return tables


def markdown(report: ZeroShot) -> str:
    """The report as GitHub tables, with what they show of what, ending with a newline."""
    parts = [f"{title(report)}\n", _markdown(by_task(report)), f"{caption(report)}\n"]
    if len(report.tasks) > 1:
        parts += ["top-1/top-5 accuracy in percent:\n", _markdown(by_stage(report))]
    return "\n".join(parts)


def title(report: ZeroShot) -> str:
    """What was measured, in a line."""
    return f"zero-shot accuracy in percent; full tower: {report.full_tower}"


def caption(report: ZeroShot) -> str:
    """What the tasks are, a line each, and where seconds were measured."""
    lines = []
    for task in report.tasks:
        number = len(task.templates)
        skipped = f", {len(task.skipped)} unreadable images skipped" if task.skipped else ""
        lines.append(
            f"{task.name} ({task.split}): {sum(task.images):,} images, {len(task.classes):,} "
            f"classes (chance {task.chance:.2g}), {number} template{'s' if number > 1 else ''}, "
            f"m = {task.m}{skipped}"
        )
        lines += [f"note: {note}" for note in task.notes]
    lines.append(
        "in brackets: 95 % intervals; seconds end to end, in brackets of the encoder only, on "
        f"{report.machine.summary}"
    )
    return "\n".join(lines)


def _task_rows(report: ZeroShot, ks: Sequence[int]) -> Iterator[tuple[str, ...]]:
    for task in report.tasks:
        for number, accuracy in enumerate((task.full, *task.stages)):
            tops = [with_interval(accuracy.top[k]) if k in accuracy.top else NOTHING for k in ks]
            yield (
                "" if number else task.name,
                _called(report, number),
                *tops,
                f"{accuracy.mean_per_class:.1f}",
                _reranked(accuracy),
                _milliseconds(report.stages[number]),
            )


def _called(report: ZeroShot, number: int) -> str:
    name = report.stages[number].name
    return name if number else f"{name} ({FULL_TOWER})"


def _top(accuracy: Accuracy, k: int) -> str:
    return f"{accuracy.top[k].value:.1f}" if k in accuracy.top else NOTHING


def _reranked(accuracy: Accuracy) -> str:
    if accuracy.cascade is None or accuracy.difference is None:
        return NOTHING
    difference = round(accuracy.difference.value, 1) + 0.0  # adding 0 makes −0 the same as 0
    return f"{with_interval(accuracy.cascade)}\n{difference:+.1f}"


def _milliseconds(cost: StageCost) -> str:
    """End to end, and of the encoder only below."""
    whole, encoder = cost.end_to_end_seconds.median, cost.encoder_seconds.median
    return f"{three_digits(1000 * whole)}\n({three_digits(1000 * encoder)})"


def _shown(cells: Cells, heading: str, below: str) -> Table:
    shown = Table(
        title=heading, caption=below, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False
    )
    for place, header in enumerate(cells.headers):
        numeric = place >= cells.texts
        shown.add_column(
            header, justify="right" if numeric else "left", no_wrap=numeric, overflow="fold"
        )
    for row in cells.rows:
        shown.add_row(*row)
    return shown


def _markdown(cells: Cells) -> str:
    headers = [header.replace("/\n", "/").replace("\n", " ") for header in cells.headers]
    return github_table(headers, cells.rows, range(cells.texts))
