"""Stages whose embeddings are rounded to what is kept of them.

A collection keeps halves by default. Rounding happens before anything else sees an embedding, so
results are the same before and after a restart, bit for bit.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from cascade.searching.states import Resuming, States
from cascade.stages.images import ImageSource
from cascade.stages.stage import Encoder

PRECISIONS = {"float16": torch.float16, "float32": torch.float32}
"""What embeddings may be kept in, by name."""


class Rounded:
    """An encoder whose images' embeddings are rounded; queries' are not.

    What a type can't hold becomes infinite, and such an image is skipped with that reason.
    """

    def __init__(self, encoder: Encoder, dtype: torch.dtype) -> None:
        self.encoder = encoder
        self.dtype = dtype

    @property
    def name(self) -> str:
        """That of the encoder."""
        return self.encoder.name

    @property
    def text_name(self) -> str:
        """That of the encoder."""
        return self.encoder.text_name

    def encode_images(self, images: Sequence[ImageSource]) -> Tensor:
        """Those of the encoder, rounded: float32 [n, d]."""
        return self.rounded(self.encoder.encode_images(images))

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Those of the encoder."""
        return self.encoder.encode_texts(texts)

    def rounded(self, embeddings: Any) -> Tensor:
        """Embeddings to the nearest numbers of the type, in float32."""
        return torch.as_tensor(embeddings).detach().cpu().to(self.dtype).float()


class RoundedResuming(Rounded):
    """A stage that resumes, in the same way."""

    @property
    def resumes(self) -> str:
        """That of the encoder."""
        return self._resuming.resumes

    def encode_first(self, images: Sequence[ImageSource]) -> tuple[Tensor, States]:
        """Those of the encoder; the embeddings are rounded."""
        embeddings, states = self._resuming.encode_first(images)
        return self.rounded(embeddings), states

    def encode_states(self, states: States) -> Tensor:
        """Those of the encoder, rounded."""
        return self.rounded(self._resuming.encode_states(states))

    @property
    def _resuming(self) -> Resuming:
        return cast(Resuming, self.encoder)


def rounded(stages: Sequence[Encoder], precision: str) -> list[Encoder]:
    """Stages with embeddings of a precision; one that stands in two places stays one."""
    dtype = PRECISIONS[precision]
    made: dict[int, Encoder] = {}
    for stage in stages:
        resumes = getattr(stage, "resumes", None) is not None
        kind = RoundedResuming if resumes else Rounded
        made.setdefault(id(stage), kind(stage, dtype))
    return [made[id(stage)] for stage in stages]
