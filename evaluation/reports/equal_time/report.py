"""Methods at equal measured time: what `evaluation.equal_time` reads off reports, as data."""

from collections.abc import Callable
from dataclasses import dataclass

from evaluation.reports.report import Report
from evaluation.reports.row import Row


@dataclass(frozen=True)
class Measure:
    """A number that methods are compared by, the larger the better, in percent."""

    heading: str
    of: Callable[[Row], float]


@dataclass(frozen=True)
class Line:
    """A method at a share of the full tower's seconds.

    `values` are those of the measures, in percent; all None where the method's rows don't reach.
    """

    share: float
    method: str
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class Comparison:
    """Methods at equal measured time.

    `lines` has one for each share and method, share by share. `reports` are what it is made of.
    """

    reports: tuple[Report, ...]
    measures: tuple[Measure, ...]
    lines: tuple[Line, ...]

    def best(self, share: float) -> tuple[float | None, ...]:
        """The best of each measure at a share, to a decimal; None where no method reaches it."""
        columns = zip(*(line.values for line in self.lines if line.share == share), strict=True)
        known = ([round(value, 1) for value in column if value is not None] for column in columns)
        return tuple(max(values, default=None) for values in known)
