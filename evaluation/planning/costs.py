"""What encoding takes, measured on a collection's own files, end to end and by encoders alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from cascade import UnreadableImage
from cascade.collection import Collection
from cascade.stages.stage import Encoder
from evaluation.measuring.clock import seconds_per_image
from evaluation.measuring.encoders import encoder_alone, running_of
from evaluation.measuring.values import Running
from evaluation.planning.sample import Sample

_TIMED = 16
_REPETITIONS = 3
BYTES = {"float16": 2, "float32": 4}


@dataclass(frozen=True)
class Costs:
    """What encoding takes.

    Attributes:
        images: of the collection.
        nbytes: of one of the last stage's embeddings on disk.
        seconds: median seconds per image of each stage, from the file to the embedding; None: no
            image could be opened.
        others: of other first stages, if they were asked for.
        encoders: of each stage's encoder alone, from prepared pixels; None: not all stages can be
            timed so.
        other_encoders: of other first stages' encoders.
        running: how each stage runs, the other first stages after the collection's own; None: a
            stage doesn't say.
    """

    images: int
    nbytes: int
    seconds: Sequence[float] | None
    others: Sequence[float] = ()
    encoders: Sequence[float] | None = None
    other_encoders: Sequence[float] = ()
    running: Sequence[Running | None] = ()


def costs_of(collection: Collection, sample: Sample, others: Sequence[Encoder] = ()) -> Costs:
    """Measure what encoding takes on some images of the sample, with the stages in turn.

    Args:
        collection: with its stages.
        sample: of its images.
        others: other first stages, measured in the same turns.
    """
    sources = [sample.contents.source(at) for at in sample.positions[:_TIMED].tolist()]
    stages = [*collection.stages, *others]
    nbytes = sample.embeddings.shape[1] * BYTES[collection.record.precision]
    try:
        alone = [encoder_alone(stage, sources) for stage in stages]
        whole = [partial(stage.encode_images, sources) for stage in stages]
        seconds, encoders = _timed(whole, alone, len(sources))
    except (UnreadableImage, OSError):  # files that were moved since, or are away
        return Costs(len(sample.contents), nbytes, None)
    own = len(collection.stages)
    return Costs(
        images=len(sample.contents),
        nbytes=nbytes,
        seconds=seconds[:own],
        others=seconds[own:],
        encoders=encoders[:own] if encoders else None,
        other_encoders=encoders[own:],
        running=[running_of(stage) for stage in stages],
    )


def _timed(
    whole: Sequence[Callable[[], object]],
    alone: Sequence[Callable[[], object] | None],
    images: int,
) -> tuple[list[float], list[float]]:
    """Median seconds per image, all in turn; none of encoders if one can't be timed alone."""
    encoders = [work for work in alone if work is not None]
    if len(encoders) < len(alone):
        encoders = []
    contenders = dict(enumerate([*whole, *encoders]))
    timings = seconds_per_image(contenders, images, _REPETITIONS, progress="seconds")
    medians = [timing.median for timing in timings.values()]
    return medians[: len(whole)], medians[len(whole) :]
