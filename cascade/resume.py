"""A tower that resumes: it takes an early exit's stored states into its next layer.

Between two stages of a cascade. Where the first stage is an early exit of the same tower, an image
that is promoted neither pays for its first layers again nor is opened again; in exchange its
states are kept, `States.bytes_per_image` for each until the cascade's limit is reached. An image
whose states were dropped is opened again and passes through all layers.

Works for towers with a class token. An early exit may merge tokens, rank or leave them out and may
be pruned; the resumed layers then attend in proportion to the tokens' sizes (ToMe, arXiv
2210.09461, equation 1), which a dense layer does by what is added to its logits.
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import closing
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from cascade.searching.states import States, states_of
from cascade.stages.images import ImageSource
from cascade.stages.stage import Stage, normalised
from pruning_mechanism import Shape, Tower, TowerError
from pruning_mechanism.families import parts_of, tower_config
from pruning_mechanism.modeling.reduced_tower import ReducedTower
from pruning_mechanism.modeling.token_rules import dense_size, has_several_sizes
from pruning_mechanism.protocols import TowerConfig


class ResumedStage:
    """A stage that goes on where an early exit stopped; has the members of `Resuming`.

    Attributes:
        stage: the deeper tower, whose layers after the exit are run.
        first: the early exit.
        merged: how many tokens fewer than `first` has are kept of each image.
        dtype: what states are kept in.
        layer: the layer of `stage` that states enter.
    """

    def __init__(
        self, stage: Stage, first: Stage, merged: int = 0, dtype: torch.dtype = torch.float16
    ):
        """Make a stage that resumes.

        Args:
            stage: the deeper tower.
            first: an early exit of a tower like it; it stays a stage of its own.
            merged: how many tokens fewer are kept of each image, at most all patches but one.
            dtype: what states are kept in; bfloat16 has a wider range than float16.

        Raises:
            TowerError: `stage` can't go on from the states of `first`.
            ValueError: `merged` is out of range, or `dtype` is no floating-point type.
        """
        _check(stage, first)
        tokens = round(Shape.of(first.model.config).layer_tokens[-1].mlp)  # whole, of one size
        if not 0 <= merged <= tokens - 2:
            raise ValueError(
                f"merged must be from 0 to {tokens - 2}, as the first stage has {tokens - 1} "
                f"patch tokens and one must stay, got {merged}"
            )
        if not dtype.is_floating_point:
            raise ValueError(f"states are kept in a floating-point type, got {dtype}")
        self.stage = stage
        self.first = first
        self.merged = merged
        self.dtype = dtype
        self.layer = Tower.of(first.model).config.num_hidden_layers

    @cached_property
    def name(self) -> str:
        """Fingerprint of all that embeddings depend on: both stages, and how states are kept."""
        parts = [self.stage.name, self.first.name, self.merged, str(self.dtype)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def resumes(self) -> str:
        """The name of the stage that states come from."""
        return self.first.name

    @property
    def text_name(self) -> str:
        """The `text_name` of the deeper tower, whose queries this stage answers."""
        return self.stage.text_name

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Embed queries with the deeper tower's stage."""
        return self.stage.encode_texts(texts)

    def encode_images(self, images: Sequence[ImageSource]) -> Tensor:
        """Embed images from the start: through the early exit, its states, and on.

        Raises:
            UnreadableImage: one of them can't be decoded.
        """
        return self.encode_states(self.encode_first(images)[1])

    def encode_first(self, images: Sequence[ImageSource]) -> tuple[Tensor, States]:
        """The early exit's embeddings, float32 [n, d], and the states to go on from.

        Raises:
            UnreadableImage: one of the images can't be decoded.
            TowerError: a state is not finite in `dtype`.
        """
        if not images:
            tower = Shape.of(self.first.model.config)
            tokens = round(tower.layer_tokens[-1].mlp) - self.merged
            nothing = torch.zeros(0, tokens, tower.hidden, dtype=self.dtype)
            return torch.zeros(0, self.first.dimension), States(nothing)
        with closing(self.first.batches(images)) as batches:
            parts = [self.encode_first_pixels(pixels) for pixels in batches]
        embeddings, states = zip(*parts, strict=True)
        return torch.cat(embeddings), States.joined(states)

    @torch.inference_mode()
    def encode_first_pixels(self, pixels: Tensor) -> tuple[Tensor, States]:
        """`encode_first` of one batch of prepared images [n, 3, height, width]: no decoding."""
        tower = Tower.of(self.first.model)
        entering = tower.embed(pixels.to(self.first.device, self.first.dtype))
        hidden, sizes = _through(tower, entering, None)
        embeddings = normalised(tower.project(hidden, sizes=sizes))
        return embeddings, states_of(hidden, sizes, self.merged, self.dtype)

    @torch.inference_mode()
    def encode_states(self, states: States) -> Tensor:
        """Go on from states: the deeper tower's embeddings of their images, float32 [n, d]."""
        tower, size = Tower.of(self.stage.model), self.stage.batch_size
        parts = [
            self._encode_batch(tower, states[start : start + size])
            for start in range(0, len(states), size)
        ]
        return torch.cat(parts) if parts else torch.zeros(0, self.stage.dimension)

    def _encode_batch(self, tower: Tower, states: States) -> Tensor:
        device, dtype = self.stage.device, self.stage.dtype
        hidden = states.hidden.to(device, dtype)
        sizes = None if states.sizes is None else states.sizes.to(device, dtype)
        hidden, sizes = _through(tower, hidden, sizes, self.layer)
        return normalised(tower.project(hidden, sizes=sizes))


def exits_early(model: PreTrainedModel) -> bool:
    """Whether a model's vision tower has fewer layers than the tower that it was made from."""
    own = tower_config(model.config, "vision")
    return own.num_hidden_layers < _depth(own)


def _depth(own: TowerConfig) -> int:
    """How many layers the tower had that a vision tower was made from."""
    return dense_size(own, "num_hidden_layers")


def _through(
    tower: Tower, hidden: Tensor, sizes: Tensor | None, layer: int = 0
) -> tuple[Tensor, Tensor | None]:
    """The stream [b, n, d] and its tokens' sizes [b, n] after all layers from `layer` on."""
    if isinstance(tower.root, ReducedTower):
        for index in range(layer, len(tower.layers)):
            hidden, sizes = tower.root.through(index, hidden, sizes)
        return hidden, sizes
    weights = None if sizes is None else sizes.log()[:, None, None]
    for block in tower.layers[layer:]:
        hidden = block(hidden, weights)
    return hidden, sizes


def _check(stage: Stage, first: Stage) -> None:
    """Raise `TowerError` unless `stage` can go on from the states of `first`."""
    for encoder in (stage, first):
        if not isinstance(encoder, Stage):
            raise TowerError(
                f"a {type(encoder).__name__} can neither resume nor be resumed: both must be a "
                "Stage"
            )
        if encoder.computes is not None:
            raise TowerError(
                f"a stage that resumes or is resumed is computed by torch in its own type, not by "
                f"{encoder.computes}: load it with runtime='torch', without dtype="
            )
        if parts_of(encoder.model.config, "vision").pooling != "first":
            raise TowerError(
                f"a {encoder.model.config.model_type!r} vision tower has no class token: only "
                "towers that have one can resume"
            )
    full, early = (tower_config(encoder.model.config, "vision") for encoder in (stage, first))
    if not exits_early(first.model):
        raise TowerError("the first stage is no early exit: it has no layer left to resume at")
    if early.num_hidden_layers >= full.num_hidden_layers:
        raise TowerError(
            f"the first stage exits after layer {early.num_hidden_layers}, but the tower that is "
            f"to resume has {full.num_hidden_layers} layers: no layer is left"
        )
    if _depth(early) != _depth(full):
        raise TowerError(
            f"the first stage is an early exit of {_depth(early)} layers, but the tower that is "
            f"to resume has {_depth(full)}: it must be of the same tower"
        )
    for name in ("hidden_size", "patch_size", "image_size"):
        ours, theirs = getattr(full, name), getattr(early, name)
        if ours != theirs:
            raise TowerError(
                f"the first stage has {name} {theirs}, the tower that is to resume {ours}: its "
                "states don't fit"
            )
    for tower, who in ((early, "the first stage"), (full, "the tower that is to resume")):
        if has_several_sizes(tower):
            raise TowerError(f"{who} takes images at several resolutions, so it can't be resumed")
    if _comparable(stage.preprocessing) != _comparable(first.preprocessing):
        raise TowerError(
            "the first stage prepares images in another way than the stage that is to resume"
        )


def _comparable(preprocessing: dict[str, Any]) -> dict[str, str]:
    """Preprocessing settings without the entries that depend on how they were read."""
    return {
        name: json.dumps(value, default=str)
        for name, value in preprocessing.items()
        if value is not None and name not in ("image_processor_type", "processor_class")
    }
