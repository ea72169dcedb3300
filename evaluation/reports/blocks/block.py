"""Rows of several reports in blocks of what compares: what `evaluation.table` shows, as data.

A block is one full tower on one collection, as in the tables of the bi-encoder cascade paper (arXiv
2303.15595); reports of another tower, corpus or protocol have a block of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.reports.record import RecordError
from evaluation.reports.report import Report
from evaluation.reports.row import Last, Middle, Row

SAME = ("corpus", "model", "split", "images", "queries", "captions", "seconds_basis")
"""Fields in which the reports of a block agree; blocks are sorted by them."""


@dataclass(frozen=True)
class Line:
    """A row, and the report that it is of, under the name that tells it apart."""

    name: str
    report: Report
    row: Row

    @property
    def m(self) -> tuple[int, ...]:
        """Candidates that its stages hand on; none where there is no cascade."""
        return () if self.row.cascade is None else self.report.m_of(self.row)

    @property
    def stages(self) -> tuple[Row | Middle, ...]:
        """The stages before the full tower, which is all there is where there is no cascade."""
        return (self.row, *self.row.middle)

    @property
    def ways(self) -> tuple[Row | Middle | Last, ...]:
        """All stages, the last of a cascade among them: what they read and run in."""
        if self.row.cascade is None:
            return (self.row,)
        return (self.row, *self.row.middle, self.row.last or self.report.reference)

    @property
    def measured(self) -> tuple[Row | Middle | Last, ...]:
        """The stages with seconds of their own: all but the full tower that others are shares of.

        That is all there is where there is no cascade.
        """
        return (self.row, *self.row.behind)

    @property
    def shares(self) -> tuple[float, ...]:
        """Seconds of each of the stages / those of the full tower, in the same report."""
        full = self.report.seconds(self.report.reference).median
        return tuple(self.report.seconds(stage).median / full for stage in self.measured)

    @property
    def encoder_shares(self) -> tuple[float, ...]:
        """`shares` of encoder-only seconds, whatever speedups are made of."""
        full = self.report.reference.encoder_seconds.median
        return tuple(stage.encoder_seconds.median / full for stage in self.measured)


@dataclass(frozen=True)
class Block:
    """One full tower on one collection: `lines`, sorted by method, then by constraint.

    `references` are the full tower as each report that has a line measured it, one at least.
    """

    references: tuple[Line, ...]
    lines: tuple[Line, ...]

    @property
    def ks(self) -> tuple[int, ...]:
        """The k's of Recall@k that every report has."""
        known = [set(line.row.alone.recall) for line in self.references]
        return tuple(sorted(set.intersection(*known)))


def blocks_of(
    reports: Sequence[Report], names: Sequence[str], methods: Sequence[str] = ()
) -> tuple[Block, ...]:
    """The reports' rows in blocks.

    Args:
        reports: at least one.
        names: one per report, which tells it apart.
        methods: of the rows that are shown, in this order; all, by their names, if there is none.

    Raises:
        RecordError: no report has a row, or none of one of these methods.
    """
    known = sorted({row.method for report in reports for row in report.rows})
    if not known:
        raise RecordError("the reports have no first stage to show")
    if missing := [method for method in methods if method not in known]:
        raise RecordError(f"no report has a method {missing[0]}, but {', '.join(known)}")
    order = {method: place for place, method in enumerate(methods or known)}
    kinds: dict[tuple[object, ...], list[tuple[str, Report]]] = {}
    for name, report in zip(names, reports, strict=True):
        kinds.setdefault(tuple(getattr(report, field) for field in SAME), []).append((name, report))
    found = []
    for _, several in sorted(kinds.items(), key=lambda kind: tuple(map(str, kind[0]))):
        lines = [Line(*named, row) for named in several for row in named[1].rows]
        kept = [line for line in lines if line.row.method in order]
        # sorting is stable: rows of one method and constraint stay in the order of the reports
        kept.sort(key=lambda line: (order[line.row.method], *_size(line.row)))
        if kept:
            shown = {line.name for line in kept}
            references = [
                Line(name, report, report.reference) for name, report in several if name in shown
            ]
            found.append(Block(tuple(references), tuple(kept)))
    return tuple(found)


def _size(row: Row) -> tuple[str, float]:
    return row.constraint_kind or "", row.constraint_value or 0.0
