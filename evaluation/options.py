"""The flags that experiments share."""

from dataclasses import dataclass
from typing import Annotated, Literal

from commands.flags import Bounds, Count
from compress.options import SourceOptions


@dataclass(frozen=True)
class SearchOptions(SourceOptions):
    """What every experiment searches and measures."""

    split: str = "validation"
    """the split to search"""
    images: Count | None = None
    """search only the first N images"""
    captions: Literal["all", "first"] = "all"
    """captions per image to use as queries"""
    m: Annotated[int, Bounds(10)] = 50
    """candidates that the first stage hands to the full tower, at least 10 for agreement@10"""
    f: Annotated[float, Bounds(0, 1)] = 0.1
    """lifetime return fraction that the lifetime speedup assumes"""
    seconds: Literal["encoder", "end to end"] = "encoder"
    """seconds to compute speedups from"""
    repetitions: Count = 5
    """times that each stage is timed, in turn with the others"""
    attention: Literal["stored", "sdpa", "eager", "fastest"] = "stored"
    """attention implementation of the towers; fastest: the one measured fastest for each"""

    @property
    def attends_by(self) -> str | None:
        """The same as a `Stage` takes it."""
        return None if self.attention == "stored" else self.attention
