"""Blocks of rows as CSV: one line for each row, every number whole."""

import csv
import io
from collections.abc import Sequence

from evaluation.measuring.values import Interval
from evaluation.reports.blocks.block import Block, Line
from evaluation.reports.report import handed_on
from evaluation.reports.row import ARROW


def comma_separated(blocks: Sequence[Block]) -> str:
    """One header and one line for each row, the full towers' among them; ends with a newline."""
    ks = sorted({k for block in blocks for k in block.ks})
    lines = [_values(line, ks) for block in blocks for line in (*block.references, *block.lines)]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _values(line: Line, ks: Sequence[int]) -> dict[str, object]:
    """Everything that a line of CSV says; a cell is empty where nothing was measured."""
    row, report = line.row, line.report
    found = row.cascade or row.alone
    changes = row.cascade.difference if row.cascade else {}
    seconds = [report.seconds(stage).median for stage in line.measured]
    values: dict[str, object] = {
        "corpus": report.corpus,
        "model": report.model,
        "split": report.split,
        "images": report.images,
        "queries": report.queries,
        "captions": report.captions,
        "report": line.name,
        "seed": report.seed,
        "method": row.method,
        "constraint": row.constraint,
        "stages": len(line.m) + 1,
        "m": handed_on(line.m),
    }
    for k in ks:
        values |= _bounded(f"recall_{k}", found.recall.get(k))
        values |= _bounded(f"recall_change_{k}", changes.get(k))
    values |= _bounded("agreement_10", found.agreement)
    return {
        **values,
        "encoder_mac_share": row.mac_fraction,
        "tower_macs": ARROW.join(str(stage.tower_macs) for stage in line.stages),
        "parameters": ARROW.join(str(stage.parameters) for stage in line.stages),
        "seconds_basis": report.seconds_basis,
        "seconds_per_image": ARROW.join(map(repr, seconds)),
        "seconds_share": ARROW.join(map(repr, line.shares)),
        "reads": ARROW.join(stage.reads for stage in line.ways),
        "runtime": ARROW.join(stage.runtime or "" for stage in line.ways).strip(f"{ARROW} "),
        "dtype": ARROW.join(stage.dtype or "" for stage in line.ways).strip(f"{ARROW} "),
        **_bounded("lifetime_speedup", row.lifetime_speedup),
        "encoder_seconds_per_image": ARROW.join(
            repr(stage.encoder_seconds.median) for stage in line.measured
        ),
        "encoder_seconds_share": ARROW.join(map(repr, line.encoder_shares)),
        **_bounded("encoder_speedup", report.speedup(row, "encoder")),
        **_bounded("last_agreement_10", row.last.agreement if row.last else None),
        **_bounded("last_lifetime_speedup", row.last.lifetime_speedup if row.last else None),
        "query_speedup": row.query_speedup,
        "f_assumed": row.f_assumed,
        "f_measured": row.f_measured,
        "machine": report.machine.summary,
    }


def _bounded(name: str, interval: Interval | None) -> dict[str, object]:
    value = (None,) * 3 if interval is None else (interval.value, interval.low, interval.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), value, strict=True))
