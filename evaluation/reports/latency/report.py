"""The latency table of models: parameters, MACs, seconds of both sides, and a score beside them.

Data alone, as `evaluation.reports.report`: the table (`evaluation.reports.latency.table`) and
`figures.latency` are made from it. Scores are in percent, times in seconds for one input. No module
that this one imports needs torch.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from evaluation.measuring.values import Interval, Machine, Timing
from evaluation.reports import record
from evaluation.reports.record import RecordError

SCHEMA = 1
FILE = "report.json"


@dataclass(frozen=True)
class Timed:
    """Seconds for one image or text, embedded so many at once.

    Attributes:
        batch: inputs embedded at once.
        encoder: from ready pixels or tokens to the embedding.
        end_to_end: from the bytes of the file, or from the words.
    """

    batch: int
    encoder: Timing
    end_to_end: Timing

    def basis(self, seconds: str) -> Timing:
        """The "encoder" or "end to end" seconds."""
        return self.encoder if seconds == "encoder" else self.end_to_end


@dataclass(frozen=True)
class Side:
    """What embeds images, or texts: tower and projection.

    Attributes:
        parameters: how many.
        timed: at each batch size of the report, in its order.
    """

    parameters: int
    timed: tuple[Timed, ...]


@dataclass(frozen=True)
class Scored:
    """What models are scored on.

    Attributes:
        name: of the corpus, or of the task.
        measure: Recall@1 (text → image) or top-1.
        data_set: whose images they are.
        split: of the data set.
        images: how many.
        texts: queries, or classes.
    """

    name: str
    measure: str
    data_set: str
    split: str
    images: int
    texts: int

    @property
    def label(self) -> str:
        """Measure and name, as in "Recall@1, scenes"."""
        return f"{self.measure}, {self.name}"


@dataclass(frozen=True)
class ModelRow:
    """One model.

    Attributes:
        name: of its directory, or on the hub.
        tower_macs: MACs of the image side for one image.
        image: the image side.
        text: the text side; None for a vision tower alone.
        borrows: the model whose text tower it is scored with, if it has none of its own.
        dtype: that it computes in.
        scores: one for each of `Latency.scored`.
    """

    name: str
    tower_macs: int
    image: Side
    text: Side | None
    borrows: str | None
    dtype: str
    scores: tuple[Interval, ...]


@dataclass(frozen=True)
class Latency(record.Saved):
    """One run over a list of models.

    Attributes:
        command: the command line that made it.
        batches: numbers of images, and of texts, that were embedded at once.
        timed_on: the data set whose first images and texts were timed.
        scored: what models are scored on; none if they are timed only.
        models: at least one.
        skipped: keys of the images that couldn't be read.
        seed: for drawing images and for the bootstrap intervals.
        machine: where it was measured.
        versions: of Python and packages.
        date: ISO 8601.
        schema: version of this form.
    """

    command: str
    batches: tuple[int, ...]
    timed_on: str
    scored: tuple[Scored, ...]
    models: tuple[ModelRow, ...]
    skipped: tuple[str, ...]
    seed: int
    machine: Machine
    versions: dict[str, str]
    date: str
    schema: int = SCHEMA

    called: ClassVar = "latency report"
    version: ClassVar = SCHEMA

    def __post_init__(self) -> None:
        """Refuse models that weren't timed or scored as the report says."""
        if not self.models:
            raise RecordError("a latency report needs a model")
        for model in self.models:
            for side in (model.image, model.text):
                batches = tuple(timed.batch for timed in side.timed) if side else self.batches
                if batches != self.batches:
                    raise RecordError(
                        f"{model.name} was timed at the batch sizes {batches}, the report says "
                        f"{self.batches}"
                    )
            if len(model.scores) != len(self.scored):
                raise RecordError(
                    f"{model.name} has {len(model.scores)} scores, the report {len(self.scored)}"
                )


def open_latency(path: Path) -> Latency:
    """Read a report that a user named.

    Raises:
        RecordError: it isn't one, or can't be read.
    """
    return record.opened(Latency.load, path, "evaluation.latency")
