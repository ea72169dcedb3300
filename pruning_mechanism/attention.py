"""How a vision tower computes its attention: by the implementation that is fastest where it runs.

Beside `latency_measurement`. transformers has several implementations of the same attention; which
one is fastest depends on the size of a head, the number of tokens, the processor, the threads and
the type, and no rule of thumb knows. The embeddings don't depend on it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from transformers import PreTrainedModel

from pruning_mechanism.checkpoints.record import first_line
from pruning_mechanism.costs.clock import in_turn
from pruning_mechanism.costs.conditions import (
    Conditions,
    conditions_of,
    noise_pixels,
    settle_memory,
)
from pruning_mechanism.encoding import image_embeddings, layered
from pruning_mechanism.families import TowerError, tower_config

IMPLEMENTATIONS = ("sdpa", "eager")
"""torch's fused kernels, and matrix products with a softmax between, by transformers' names.

Those that merged towers can have too: transformers' others don't add to logits, or need a compiler.
"""
OWN = "its own"
"""What the attention of an encoder is called that comes from another library."""
FASTEST = "fastest"
"""What asks for a measurement instead of naming one of these."""


@dataclass(frozen=True)
class AttentionChoice:
    """The implementation of a vision tower's attention, and why it was chosen.

    `seconds` are median seconds per image of the vision tower by implementation, measured under
    `conditions`; there are none where nothing was measured.
    """

    name: str
    seconds: Mapping[str, float] = field(default_factory=dict)
    conditions: Conditions | None = None


def attention_of(model: PreTrainedModel) -> str:
    """The implementation by which a model's vision tower attends.

    An encoder of another library attends by its own, if at all.
    """
    if not layered(model):
        return OWN
    return tower_config(model.config, "vision")._attn_implementation


def check_attention(name: str | None) -> None:
    """Raise `TowerError` unless `name` is an implementation, "fastest", or None: as it is."""
    if name not in (None, FASTEST, *IMPLEMENTATIONS):
        known = ", ".join(map(repr, (FASTEST, *IMPLEMENTATIONS)))
        raise TowerError(f"attention is one of {known}, or None to leave it as it is, not {name!r}")


def set_attention(model: PreTrainedModel, name: str) -> None:
    """Let a model's vision tower attend by this implementation, in place; texts stay as they are.

    Raises:
        TowerError: transformers has no such implementation for the model.
    """
    kind = model.config.model_type
    if not layered(model):
        raise TowerError(f"a {kind!r} model's encoder computes its attention itself, not {name!r}")
    whole = model.config is not tower_config(model.config, "vision")
    try:
        model.set_attn_implementation({"vision_config": name} if whole else name)
    except (ValueError, ImportError) as error:
        reason = first_line(error)
        raise TowerError(f"a {kind!r} model can't attend by {name!r}: {reason}") from error
    if attention_of(model) != name:  # of a model that can't change it transformers only warns
        raise TowerError(f"a {kind!r} model attends by {attention_of(model)!r} only, not {name!r}")


@torch.inference_mode()
def fastest_attention(
    model: PreTrainedModel, batch_size: int = 32, repetitions: int = 5
) -> AttentionChoice:
    """Measure which implementation makes `model`'s vision tower fastest, where and as it is.

    A turn passes one batch through the tower by each implementation; medians over the turns.

    Args:
        model: dense or smaller; afterwards it attends as before, which is a contender as well.
        batch_size: images in a batch; the choice is true of batches of that size.
        repetitions: timed turns, after one untimed.

    Raises:
        ValueError: a count is below 1.
    """
    if batch_size < 1 or repetitions < 1:
        raise ValueError(f"need counts of at least 1, got {batch_size} and {repetitions}")
    before, pixels = attention_of(model), noise_pixels(model, batch_size)
    names = dict.fromkeys((before, *IMPLEMENTATIONS))
    works = dict.fromkeys(names, partial(image_embeddings, model, pixels))
    settle_memory()
    try:
        turns = in_turn(works, repetitions, pixels.device, prepare=partial(set_attention, model))
    finally:
        set_attention(model, before)
    medians = {name: float(np.median(seconds)) for name, seconds in turns.items()}
    return AttentionChoice(
        name=min(medians, key=medians.__getitem__),
        seconds={name: median / batch_size for name, median in medians.items()},
        conditions=conditions_of(model, batch_size, repetitions),
    )


def choose_attention(
    model: PreTrainedModel, name: str | None, batch_size: int = 32
) -> AttentionChoice:
    """Let a model's vision tower attend by `name`, in place, after a measurement if "fastest".

    Raises:
        TowerError: as `check_attention` and `set_attention`.
    """
    check_attention(name)
    if name is None or (name == FASTEST and not layered(model)):
        return AttentionChoice(attention_of(model))
    choice = fastest_attention(model, batch_size) if name == FASTEST else AttentionChoice(name)
    set_attention(model, choice.name)
    return choice
