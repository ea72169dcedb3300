"""What a collection holds.

python -m cascade.status photos.cascade --skipped
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cascade.inverted.fitting import Index
from cascade.terminal.command import run_command
from commands.flags import ConfigOption, Positional, ReadPath
from commands.run import main_of


@dataclass(frozen=True)
class StatusOptions(ConfigOption):
    """Say what a collection holds, how far each stage has come, and what was skipped.

    Example: python -m cascade.status photos.cascade --skipped
    """

    collection: Positional[Annotated[ReadPath, tyro.conf.arg(metavar="COLLECTION")]] = Path(
        "photos.cascade"
    )
    """the collection, as cascade.index made it"""
    skipped: bool = False
    """list every photo that was skipped, with the reason"""
    index: Index = "auto"
    """how the first stage is to be searched, as of cascade.search"""
    json: bool = False
    """print it as one line of JSON"""


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("cascade.status"), StatusOptions, "cascade.status", towers=False)

import json
from contextlib import closing
from dataclasses import asdict, fields

from rich.table import Table

from cascade.collecting.approach import Approach
from cascade.collecting.counting import Status, counted
from cascade.collecting.record import Record
from cascade.storing.lance import LanceStore
from cascade.terminal.inverted import told
from cascade.terminal.skipped import by_reason, one_by_one
from commands.screen import console, printable

_ENTRIES = [field.name for field in fields(Status)]


def main(options: StatusOptions) -> None:
    """Read the collection's tables and show what is there; no checkpoint is loaded, nor PyTorch."""
    record = Record.read(options.collection)
    path = options.collection
    store = LanceStore(path, len(record.stages), record.precision, record.generation)
    with closing(store):
        approach = Approach(options.index, store, path, record.generation, record.precision)
        status, skipped = counted(store, record, approach)
    if options.json:
        entry = {name: getattr(status, name) for name in _ENTRIES}
        if status.inverted is not None:
            entry["inverted"] = asdict(status.inverted)
        entry["checkpoints"] = [stage.checkpoint for stage in record.stages]
        entry["reads"] = [stage.reads for stage in record.stages]
        entry["computes"] = [stage.computes for stage in record.stages]
        if options.skipped:
            entry["reasons"] = skipped
        print(json.dumps(entry, ensure_ascii=False))
        return
    screen = console()
    screen.print(
        f"{printable(options.collection)}: {status.images:,} photos, "
        f"{sum(status.skipped.values()):,} skipped, {status.nbytes / 1e6:,.1f} MB"
    )
    table = Table("stage", "checkpoint", "encoded", "share", "hands on")
    for column in table.columns[2:]:
        column.justify = "right"
    for place, (stage, encoded) in enumerate(zip(record.stages, status.encoded, strict=True)):
        share = f"{encoded / status.images:.1%}" if status.images else "–"
        handed = f"{status.m[place]:,}" if place < len(status.m) else ""
        table.add_row(str(place + 1), printable(stage), f"{encoded:,}", share, handed)
    screen.print(table)
    for line in told(status.searched, status.inverted, record.plan):
        screen.print(line, soft_wrap=True)
    if any(stage.resumes for stage in record.stages):
        screen.print(
            f"states to go on from: {status.states:,} photos, {status.state_bytes:,} bytes each"
        )
    if skipped:
        screen.print(one_by_one(skipped) if options.skipped else by_reason(skipped))
