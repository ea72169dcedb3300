"""Who is timed, under which name, and what their seconds mean beside one another."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cascade import Stage
from commands.published import published_name
from evaluation.breaking_down.timing import Measured
from evaluation.breaking_down.ways import OfStage, Plain, Way
from evaluation.measuring.clock import speedup_interval
from evaluation.measuring.settings import Settings
from evaluation.measuring.values import Interval, Timing
from evaluation.reports.breakdown import report
from evaluation.reports.breakdown.report import Lifetime, Role


@dataclass(frozen=True)
class Contender:
    """A way to be opened.

    Attributes:
        role: of the way.
        path: of its checkpoint.
        settings: of a stage.
    """

    role: Role
    path: str
    settings: Settings

    @property
    def label(self) -> str:
        """What it is called where no other checkpoint has the same name."""
        before = "transformers, " if self.role == "plain" else ""
        return f"{before}{published_name(self.path)} {self.settings.label}".strip()

    def open(self, device: str, batch_size: int) -> Way:
        """Load it.

        Raises:
            TowerError: it can't be loaded, or not so.
        """
        if self.role == "plain":
            return Plain(self.path, device, batch_size)
        given: dict[str, Any] = dict(self.settings.given)
        given.pop("jpeg", None)
        stage = Stage.load(self.path, device, batch_size, without_texts=True, **given)
        if self.settings.decodes_on_cpu:
            stage.preparation.decoder = None
        return OfStage(stage)


def named(contenders: Sequence[Contender]) -> dict[str, Contender]:
    """Contenders by names that tell them apart: directories may be called alike."""
    met: Counter[str] = Counter()
    found = {}
    for contender in contenders:
        met[contender.label] += 1
        number = met[contender.label]
        name = contender.label if number == 1 else f"{contender.label} ({number})"
        found[name] = contender
    return found


@dataclass(frozen=True)
class Timed:
    """A contender that was opened and measured."""

    contender: Contender
    way: Way
    measured: Measured


def rows_of(timed: Mapping[str, Timed], f: float, threads: int) -> list[report.Way]:
    """What a report says of contenders that were timed in turn.

    Args:
        timed: by name.
        f: lifetime return fraction.
        threads: that each had.
    """
    plain = next((one.measured for one in timed.values() if one.contender.role == "plain"), None)
    last = _fastest_last(timed)
    return [
        report.Way(
            name=name,
            role=one.contender.role,
            checkpoint=published_name(one.contender.path),
            reads=one.way.reads,
            runtime=one.way.runtime,
            dtype=one.way.dtype,
            threads=threads,
            split=one.measured.split,
            end_to_end=one.measured.end_to_end,
            nbytes=one.measured.nbytes,
            faster=None if plain is None else _ratio(plain.end_to_end, one.measured.end_to_end),
            faster_encoder=(
                None if plain is None else _ratio(plain.split.encode, one.measured.split.encode)
            ),
            lifetime=_lifetime(one, last, plain, f, timed),
        )
        for name, one in timed.items()
    ]


def _fastest_last(timed: Mapping[str, Timed]) -> str | None:
    """The full tower that a cascade would end with: the fastest end to end."""
    towers = [name for name, one in timed.items() if one.contender.role == "full tower"]
    return min(towers, key=lambda name: timed[name].measured.end_to_end.median, default=None)


def _lifetime(
    one: Timed, last: str | None, plain: Measured | None, f: float, timed: Mapping[str, Timed]
) -> Lifetime | None:
    if one.contender.role != "first stage" or last is None:
        return None
    first, tower = one.measured, timed[last].measured
    stages = first.end_to_end, tower.end_to_end
    encoders = first.split.encode, tower.split.encode
    return Lifetime(
        last=last,
        same=speedup_interval(stages, f),
        encoder=speedup_interval(encoders, f),
        plain=None if plain is None else speedup_interval(stages, f, plain.end_to_end),
        plain_encoder=(
            None if plain is None else speedup_interval(encoders, f, plain.split.encode)
        ),
    )


def _ratio(plain: Timing, own: Timing) -> Interval:
    """How many times faster, with bounds of the clock from the quartiles of both."""
    return Interval(
        plain.median / own.median,
        plain.lower_quartile / own.upper_quartile,
        plain.upper_quartile / own.lower_quartile,
    )
