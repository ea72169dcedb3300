"""Which numbers of a report's rows a panel shows, and what its axes are called.

Stands between the report and `figures.pareto`: upwards recall or agreement, of the cascade or of
the first stage alone; to the right what is saved, as measured speedup or as MACs.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from evaluation.measuring.values import Interval
from evaluation.reports.report import Report
from evaluation.reports.row import Row

Quality = Literal["recall", "agreement"]
Saving = Literal["speedup", "macs"]


@dataclass(frozen=True)
class View:
    """What a panel shows of each row.

    Attributes:
        y: recall or agreement.
        x: the cascade's lifetime speedup, or the first stage's share of the dense encoder's MACs.
        k: of Recall@k.
        alone: the first stage as an ordinary search, not the cascade.
    """

    y: Quality
    x: Saving
    k: int
    alone: bool

    def quality(self, row: Row) -> Interval:
        """Recall@k or agreement@10 in percent, with its 95 % interval."""
        result = row.alone if self.alone or row.cascade is None else row.cascade
        return result.recall[self.k] if self.y == "recall" else result.agreement

    def saving(self, row: Row) -> Interval:
        """Speedup with the quartiles of the clock, or the share of MACs, which has no bounds."""
        if self.x == "speedup":
            return row.lifetime_speedup
        return Interval(row.mac_fraction, row.mac_fraction, row.mac_fraction)

    def spot(self, row: Row) -> tuple[float, float]:
        """Where the row's marker stands, (x, y)."""
        return self.saving(row).value, self.quality(row).value

    def worth(self, row: Row) -> tuple[float, float]:
        """(saving, quality), larger is better in both: the fewer MACs the better."""
        saving, quality = self.spot(row)
        return saving if self.x == "speedup" else -saving, quality

    def y_label(self) -> str:
        """Name of the upright axis."""
        name = f"Recall@{self.k} (%)" if self.y == "recall" else "agreement@10 (%)"
        return f"{name}\n{'first stage alone' if self.alone else 'cascade'}"

    def x_label(self, reports: Sequence[Report]) -> str:
        """Name of the level axis, and what the bars are."""
        if self.x == "macs":
            return (
                "MACs of the first stage's encoder layers / the full tower's\n"
                f"bars: 95 % interval of {self.y}"
            )
        return (
            f"lifetime speedup of the cascade{at_f(reports)}, {reports[0].seconds_of} (×)\n"
            f"bars: quartiles of the clock; 95 % interval of {self.y}"
        )


def title(report: Report) -> str:
    """What was searched, in lines as wide as a picture."""
    text = (
        f"{report.model} on {report.corpus}, {report.images:,} images, {report.queries:,} queries, "
        f"{report.candidates}"
    )
    return textwrap.fill(text, 76)


def at_f(reports: Sequence[Report]) -> str:
    """The f that lifetime speedups are at, to stand behind their name; "" if reports differ."""
    found = {report.f_assumed for report in reports}
    (assumed,) = found if len(found) == 1 else (None,)
    return "" if assumed is None else f" at f = {assumed:g}"
