"""Where a CLIP vision tower keeps its parts.

A tower is a row of sublayers, attention and MLP in turn. Each ends in an output projection whose
input is made of units, heads or neurons, and adds its result to the residual stream. Masking,
scoring and repair all watch or change the input of that projection; this file is the one place
that knows where it is.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn


class TowerError(ValueError):
    """A checkpoint, tower or mask that can't be used, in one line for the user."""


@dataclass(frozen=True)
class Sublayer:
    """An attention or MLP sublayer: hidden += output(units of body(norm(hidden))).

    `output` (out_proj or fc2) takes `units` groups of `unit_width` inputs each: the heads' context
    vectors (head dimension), or the neurons' activations (1).
    """

    layer: int
    kind: Literal["heads", "neurons"]
    norm: nn.LayerNorm
    body: nn.Module
    output: nn.Linear
    unit_width: int

    @property
    def units(self) -> int:
        """How many heads or neurons there are."""
        return self.output.in_features // self.unit_width

    def __call__(self, hidden: Tensor) -> Tensor:
        """The residual stream [b, n, d] after this sublayer."""
        if not self.units:
            return hidden + self.output.bias
        result = self.body(self.norm(hidden))  # attention gives its weights as well
        return hidden + (result[0] if isinstance(result, tuple) else result)

    def features(self, hidden: Tensor) -> Tensor:
        """What the output projection gets, [b, n, units * unit_width], for a stream [b, n, d]."""
        if not self.units:
            return hidden[..., :0]
        seen = []
        with self.watch(seen.append):
            self.body(self.norm(hidden))
        return seen[0]

    @contextmanager
    def watch(self, hook: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
        """Within the context `hook` sees the output projection's input, and may replace it."""

        def pre_hook(_module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor] | None:
            changed = hook(args[0])
            return None if changed is None else (changed,)

        handle = self.output.register_forward_pre_hook(pre_hook)
        try:
            yield
        finally:
            handle.remove()


def vision_config(config):
    """The vision tower's configuration, given a whole CLIP's or its own."""
    return getattr(config, "vision_config", None) or config


def sublayers(model: nn.Module) -> list[Sublayer]:
    """The sublayers of a CLIP's vision tower, in the order in which they run."""
    found = []
    for index, layer in enumerate(model.vision_model.encoder.layers):
        attention, mlp = layer.self_attn, layer.mlp
        found.append(
            Sublayer(
                index, "heads", layer.layer_norm1, attention, attention.out_proj, attention.head_dim
            )
        )
        found.append(Sublayer(index, "neurons", layer.layer_norm2, mlp, mlp.fc2, 1))
    return found


def embed(model: nn.Module, pixels: Tensor) -> Tensor:
    """What enters the first layer, [b, n, d], for pixels [b, 3, height, width]."""
    vision = model.vision_model
    return vision.pre_layrnorm(vision.embeddings(pixels))


def project(model: nn.Module, hidden: Tensor) -> Tensor:
    """The embedding [b, e], not normalised, of what leaves the last layer [b, n, d]."""
    return model.visual_projection(model.vision_model.post_layernorm(hidden[:, 0]))


def image_embeddings(model: nn.Module, pixels: Tensor) -> Tensor:
    """The vision tower's embeddings [b, e], not normalised, of pixels [b, 3, height, width]."""
    return model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)


def text_embeddings(model: nn.Module, tokens: dict[str, Tensor]) -> Tensor:
    """The text tower's embeddings [b, e], not normalised, of tokenised captions.

    Raises:
        TowerError: the model is a vision tower alone.
    """
    if not hasattr(model, "text_model"):
        raise TowerError(
            "this checkpoint has no text tower: name a whole CLIP that it belongs to as well"
        )
    return model.text_projection(model.text_model(**tokens).pooler_output)
