"""What measuring yields: intervals, seconds, and the machine they were measured on.

Plain data without torch, so that reports can be read, tabled and drawn without it.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """A measured value and the bounds around it, in the unit of the value."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Timing:
    """Seconds per image over several repetitions."""

    median: float
    lower_quartile: float
    upper_quartile: float
    repetitions: int


@dataclass(frozen=True)
class Running:
    """How a stage runs: how much of a file it reads, what computes it and in which type."""

    reads: str
    runtime: str
    dtype: str

    def __str__(self) -> str:
        return f"reads {self.reads}, {self.runtime} {self.dtype}"


@dataclass(frozen=True)
class Machine:
    """The machine, as far as seconds depend on it.

    `cores` are those this process may use, `threads` those torch computes with; `dtype` is the
    one that the towers were computed in.
    """

    cpu: str
    cores: int
    threads: int
    device: str
    dtype: str
    system: str

    @property
    def summary(self) -> str:
        """What tables say of it."""
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.cpu}, {threads}, {self.device}, {self.dtype}"
