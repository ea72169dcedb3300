"""A collection's stages as they are timed: their encoders alone, and how they run.

Stands between `cascade`, whose stages may be recalled, mapped or resumed, and the clock.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cascade.collecting.recalling import RecalledStage
from cascade.resume import ResumedStage
from cascade.stages.images import ImageSource
from cascade.stages.mapped import MappedStage
from cascade.stages.stage import Encoder, Stage
from evaluation.measuring.values import Running


def encoder_alone(encoder: Encoder, sources: Sequence[ImageSource]) -> Callable[[], Tensor] | None:
    """What a stage does once images are opened and prepared; None: it can't be told apart.

    They are opened and prepared now. A map belongs to the encoder; a stage that resumes encodes
    from the start, as it does for an image whose states aren't kept.

    Raises:
        UnreadableImage: one of them can't be decoded or prepared.
    """
    loaded = _loaded(encoder)
    if isinstance(loaded, MappedStage):
        behind, mapped = encoder_alone(loaded.stage, sources), loaded.map
        return None if behind is None else lambda: mapped(behind())
    if isinstance(loaded, ResumedStage):
        batches = loaded.first.pixels(sources).split(loaded.first.batch_size)
        return lambda: torch.cat(
            [loaded.encode_states(loaded.encode_first_pixels(pixels)[1]) for pixels in batches]
        )
    if isinstance(loaded, Stage):
        several = loaded.pixels(sources).split(loaded.batch_size)
        return lambda: torch.cat([loaded.encode_pixels(pixels) for pixels in several])
    return None


def running_of(encoder: Encoder) -> Running | None:
    """How a stage runs; None: it doesn't say."""
    loaded = _loaded(encoder)
    if isinstance(loaded, MappedStage):
        return running_of(loaded.stage)
    if isinstance(loaded, ResumedStage):
        own = loaded.stage.runs_in
        return Running(loaded.first.reads, own.runtime, own.dtype)
    if isinstance(loaded, Stage):
        return Running(loaded.reads, loaded.runs_in.runtime, loaded.runs_in.dtype)
    return None


def _loaded(encoder: Encoder) -> Encoder:
    return encoder.stage if isinstance(encoder, RecalledStage) else encoder
