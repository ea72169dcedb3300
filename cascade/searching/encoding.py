"""What a stage makes of each image: an embedding, or the reason why there is none.

Between a stage and what a cascade keeps. Nothing that a stage returns is believed unchecked, and
nothing is kept before it was checked.
"""

import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from cascade.searching.states import States
from cascade.stages.images import ImageSource, UnreadableImage
from cascade.stages.stage import Encoder

_OF_ONE_IMAGE = (UnreadableImage, OSError, MemoryError)
_OF_THE_ENCODER = (ConnectionError, TimeoutError)  # OSErrors too, but no image's fault


@dataclass(frozen=True)
class Encoded:
    """What a stage made of one image: its embedding float32 [d], and states if they are kept."""

    embedding: Tensor
    states: States | None = None


@dataclass(frozen=True)
class Skipped:
    """An image that has no embedding, and why."""

    reason: str


Outcome: TypeAlias = Encoded | Skipped
Encoding: TypeAlias = Callable[[Sequence[ImageSource]], tuple[Tensor, States | None]]


class OneAtATime:
    """An encoder and its locks: one thread at a time gives it images, and one texts.

    Threads lose nothing by waiting for each other: an encoder uses all cores, and images that are
    asked for at the same time share batches.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.images = threading.Lock()
        self.texts = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """Without the locks."""
        return {"encoder": self.encoder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, images=threading.Lock(), texts=threading.Lock())


def encode_each(
    encode: Encoding, images: Sequence[ImageSource], dimension: int | None, stage: int
) -> list[Outcome]:
    """The outcome of each of a batch of images, which is halved around those that fail.

    What fails for one image alone (it can't be read, or not held in memory, or its embedding is
    not finite) is a reason to skip it. Other errors are the encoder's and are raised.

    Args:
        encode: images → embeddings [n, d] and perhaps states.
        images: the batch.
        dimension: what d must be, if it is known.
        stage: the encoder's place in the cascade, for messages.

    Raises:
        ValueError: the embeddings aren't [n, d] of that dimension.
    """
    try:
        embeddings, states = encode(images)
    except _OF_THE_ENCODER:
        raise
    except _OF_ONE_IMAGE as error:
        if len(images) == 1:
            return [Skipped(_reason(error))]
    else:
        return _outcomes(embeddings, states, len(images), dimension, stage)
    half = len(images) // 2
    halves = (images[:half], images[half:])
    return [outcome for part in halves for outcome in encode_each(encode, part, dimension, stage)]


def encode_states(
    encode: Callable[[States], Tensor], states: States, dimension: int | None, stage: int
) -> list[Outcome]:
    """The outcome of each of the images whose states these are; see `encode_each`."""
    return _outcomes(encode(states), None, len(states), dimension, stage)


def encode_queries(encoders: Sequence[OneAtATime], texts: Sequence[str]) -> list[Tensor]:
    """Query embeddings float32 [Q, d] for each stage, each text once by each text tower.

    Raises:
        ValueError: a stage doesn't give one embedding for each text, or one that isn't finite.
    """
    place = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    rows = [place[text] for text in texts]
    by_tower: dict[Hashable, Tensor] = {}
    for stage, locked in enumerate(encoders):
        name = locked.encoder.text_name
        if name in by_tower:
            continue
        with locked.texts:
            embeddings = locked.encoder.encode_texts(list(place))
        embeddings = _checked(embeddings, len(place), "queries", None, stage)
        for text, finite in zip(place, _finite(embeddings), strict=True):
            if not finite:
                raise ValueError(
                    f"stage {stage} embeds the query {text!r} to numbers that are not finite: "
                    "look for NaN in its text tower's weights"
                )
        by_tower[name] = embeddings[rows]
    return [by_tower[locked.encoder.text_name] for locked in encoders]


def _outcomes(
    embeddings: Tensor, states: States | None, images: int, dimension: int | None, stage: int
) -> list[Outcome]:
    embeddings = _checked(embeddings, images, "images", dimension, stage)
    if states is not None and len(states) != images:
        raise ValueError(f"stage {stage} gave the states of {len(states)} images for {images}")
    apart = [None] * images if states is None else states.apart()
    return [
        Encoded(embedding, kept) if finite else Skipped("its embedding is not finite")
        for embedding, kept, finite in zip(embeddings, apart, _finite(embeddings), strict=True)
    ]


def _checked(
    embeddings: Tensor, number: int, what: str, dimension: int | None, stage: int
) -> Tensor:
    """Embeddings as float32 [n, d] on the CPU, of memory of their own where they were not."""
    embeddings = torch.as_tensor(embeddings)
    if embeddings.ndim != 2 or len(embeddings) != number or not embeddings.is_floating_point():
        raise ValueError(
            f"stage {stage} gave {embeddings.dtype} {list(embeddings.shape)} for {number} {what}: "
            f"floating-point embeddings [{number}, dimension] are needed"
        )
    if dimension is not None and embeddings.shape[1] != dimension:
        raise ValueError(
            f"stage {stage} gave embeddings of {embeddings.shape[1]} dimensions for {number} "
            f"{what}, its queries or images before have {dimension}"
        )
    return embeddings.detach().to("cpu", torch.float32)


def _finite(embeddings: Tensor) -> list[bool]:
    return embeddings.isfinite().all(dim=1).tolist()


def _reason(error: BaseException) -> str:
    """An error in words."""
    if isinstance(error, UnreadableImage) and str(error):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
