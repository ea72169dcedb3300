"""The flags that experiments share."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from commands.flags import Bounds, Count, NotSplit, flag_of
from commands.inputs import Input
from commands.towers import DtypeName, RuntimeName
from compress.errors import UserError
from compress.options import SourceOptions

Candidates = Annotated[int, Bounds(10)]
"""A number of candidates: at least the ten that agreement@10 is of."""


@dataclass(frozen=True)
class SearchOptions(SourceOptions):
    """What every experiment searches and measures."""

    split: str = "validation"
    """the split to search"""
    images: Count | None = None
    """search only the first N images"""
    captions: Literal["all", "first"] = "all"
    """captions per image to use as queries"""
    m: tuple[Candidates, ...] = (50,)
    """candidates that each stage hands to the next, decreasing, at least 10 for agreement@10"""
    f: Annotated[float, Bounds(0, 1)] = 0.1
    """lifetime return fraction that the lifetime speedup assumes"""
    seconds: Literal["end to end", "encoder"] = "end to end"
    """seconds that speedups are made of: from the bytes of files, or from ready pixels; either way
    the report has both, and speedups of the encoder only beside"""
    repetitions: Count = 5
    """times that each stage is timed, in turn with the others"""
    attention: Literal["stored", "sdpa", "eager", "fastest"] = "stored"
    """attention implementation of the towers; fastest: the one measured fastest for each"""

    @property
    def later_stages(self) -> int:
        """How many stages come after the first: the full tower."""
        return 1

    def check(self) -> None:
        """Raise `UserError` if the m's don't fit the stages, or don't decrease."""
        super().check()
        wanted, given = self.later_stages, " ".join(map(str, self.m))
        if len(self.m) != wanted:
            raise UserError(
                f"--m takes {wanted} number{'s' if wanted > 1 else ''} here, one for each stage "
                f"after the first, found {given or 'none'}"
            )
        if any(after >= before for before, after in pairwise(self.m)):
            raise UserError(
                f"--m {given}: each stage hands fewer candidates on than the one before"
            )

    @property
    def attends_by(self) -> str | None:
        """The same as a `Stage` takes it."""
        return None if self.attention == "stored" else self.attention


@dataclass(frozen=True)
class RunningOptions(SearchOptions):
    """How the stages of an experiment run: what they read, what computes them, in which type."""

    runtime: RuntimeName = "torch"
    """what computes vision towers; auto: the one measured fastest here for each"""
    dtype: DtypeName = "float32"
    """what first stages compute in; the full tower stays in float32"""
    first_as: NotSplit[tuple[str, ...]] = ("stored",)
    """each first stage as stored, or with settings: reads=scaled,runtime=openvino,dtype=int8"""
    last_as: NotSplit[tuple[str, ...]] = ("stored",)
    """the full tower behind them so; agreement, recall and speedups are then against the full tower
    in torch float32 that reads in full"""

    def check(self) -> None:
        """Raise `UserError` if a way to run is named twice, or none is."""
        super().check()
        for name in ("first_as", "last_as"):
            values = getattr(self, name)
            if len(set(values)) < max(1, len(values)):
                said = f"{flag_of(name)} {' '.join(values)}".strip()
                raise UserError(f"{said}: name at least one, and each once")

    @property
    def tells_last(self) -> bool:
        """Whether it is said how the full tower runs behind first stages."""
        return self.last_as != RunningOptions.last_as


def refuse_named_classes(classes: Path | None, datasets: Sequence[str]) -> None:
    """Raise `UserError` if class names are given for several data sets, or for scenes."""
    if classes and (len(set(datasets)) > 1 or "scenes" in datasets):
        raise UserError(
            "--classes names the classes of one data set, and scenes have names of their own: "
            "pass a single one of --datasets that isn't scenes"
        )


def places_of(datasets: Sequence[str]) -> tuple[Input, ...]:
    """The directories that data sets lie in, which nothing is written over."""
    places = [Path(name.partition(":")[2]) for name in datasets if ":" in name]
    return tuple(Input("--datasets", place) for place in places if place.is_dir())
