"""Which milliseconds of a latency report are drawn: of which side, batch size and source."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from evaluation.measuring.values import Interval, Timing
from evaluation.reports.latency.report import Latency, ModelRow, Side

Sides = Literal["image", "image + text"]
Seconds = Literal["encoder", "end to end"]


@dataclass(frozen=True)
class View:
    """Which milliseconds are drawn."""

    batch: int
    seconds: Seconds = "encoder"
    side: Sides = "image"

    def milliseconds(self, model: ModelRow, texts: Mapping[str, Side]) -> Interval:
        """Median and quartiles of a model; of both sides, the sums of theirs.

        Args:
            model: of a report that has the batch size.
            texts: the text sides of its report, by the names of their models.
        """
        timings = [self._timing(model.image)]
        if self.side == "image + text":
            timings.append(self._timing(_text(model, texts)))
        return Interval(
            1000 * sum(timing.median for timing in timings),
            1000 * sum(timing.lower_quartile for timing in timings),
            1000 * sum(timing.upper_quartile for timing in timings),
        )

    def parameters(self, model: ModelRow, texts: Mapping[str, Side]) -> int:
        """Of the sides that are waited for."""
        own = model.image.parameters
        return own if self.side == "image" else own + _text(model, texts).parameters

    @property
    def label(self) -> str:
        """What the axis says."""
        ready = "encoder only" if self.seconds == "encoder" else "from the bytes of files"
        return f"milliseconds per {self.side} ({ready}, batch {self.batch})"

    def _timing(self, side: Side) -> Timing:
        (timed,) = (timed for timed in side.timed if timed.batch == self.batch)
        return timed.basis(self.seconds)


def _text(model: ModelRow, texts: Mapping[str, Side]) -> Side:
    """The text side of a model, its own or the one that it borrows."""
    return texts[model.borrows or model.name]


def texts_of(report: Latency) -> dict[str, Side]:
    """The text sides of a report's models, by their names."""
    return {model.name: model.text for model in report.models if model.text}
