"""The report of an experiment: put together, written, and shown.

The last step of every experiment: `evaluation.cascade` and `evaluation.masking` end here.
"""

import datetime
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from commands.published import published_command, published_corpus, published_name
from commands.screen import console, printable
from evaluation.experiment.search import Search
from evaluation.measuring.machine import this_machine, versions
from evaluation.options import SearchOptions
from evaluation.reports import table
from evaluation.reports.record import write_text
from evaluation.reports.report import Report
from evaluation.reports.row import Row


def reported(
    command: str,
    tower: str,
    calibration: str,
    skipped: Sequence[str],
    search: Search,
    options: SearchOptions,
    reference: Row,
    rows: Sequence[Row],
) -> Report:
    """The report of an experiment.

    Args:
        command: the module that the user named, as in `python -m COMMAND`.
        tower: path or hub name of the full tower.
        calibration: what the first stages were calibrated on, in words.
        skipped: keys of the images that couldn't be read.
        search: what was searched.
        options: how.
        reference: the full tower.
        rows: one per first stage.
    """
    stages = [reference, *rows, *(stage for row in rows for stage in row.behind)]
    dtypes = ", ".join(dict.fromkeys(stage.dtype for stage in stages if stage.dtype))
    machine = replace(this_machine(options.device, search.tower.dtype), dtype=dtypes)
    return Report(
        command=published_command(command, options),
        model=published_name(tower),
        corpus=published_corpus(options.corpus),
        split=options.split,
        images=len(search.corpus),
        queries=len(search.queries.texts),
        calibration=calibration,
        captions=options.captions,
        m=options.m,
        seconds_basis=options.seconds,
        seed=options.seed,
        skipped=tuple(skipped),
        reference=reference,
        rows=tuple(rows),
        machine=machine,
        versions=versions(),
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    )


def write_report(report: Report, directory: Path) -> None:
    """Write report.json and report.md into a directory."""
    report.save(directory / "report.json")
    write_text(directory / "report.md", table.markdown(report))


def show_report(report: Report, output: Path) -> None:
    """Show the table, what was skipped, and where the report was written."""
    console().print(table.terminal(report))
    for key in report.skipped:
        console().print(f"skipped, because it can't be read: {printable(key)}")
    console().print(f"wrote {printable(output)}", soft_wrap=True)
