"""What this project reads of configurations, towers, processors and tokenizers, whoever made them.

transformers gives each family classes of its own for these. They share no base class that names
what every one of them has, so it is named here.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn
from transformers import PreTrainedModel


class Config(Protocol):
    """A configuration: a whole model's, or one of its towers' own.

    `families.tower_config` gives the tower's, whichever of the two it is given.
    """

    @property
    def model_type(self) -> str:
        """What the family calls it."""

    def to_dict(self) -> dict[str, Any]:
        """Its entries, as its file has them."""


class TowerConfig(Config, Protocol):
    """What the configurations of all towers have."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    layer_norm_eps: float

    @property
    def _attn_implementation(self) -> str:
        """What its attention is computed by, as transformers calls it."""


class VisionConfig(TowerConfig, Protocol):
    """A vision tower's configuration; images are `image_size` x `image_size` pixels."""

    image_size: int
    patch_size: int
    num_channels: int


class TextConfig(TowerConfig, Protocol):
    """A text tower's configuration; texts are at most `max_position_embeddings` tokens long."""

    max_position_embeddings: int
    eos_token_id: int
    vocab_size: int


class Attention(Protocol):
    """An attention module, dense or pruned; `scale` is that of the logits."""

    q_proj: nn.Linear
    k_proj: nn.Linear
    v_proj: nn.Linear
    out_proj: nn.Linear
    num_heads: int
    head_dim: int
    scale: float


class MLP(Protocol):
    """An MLP module, dense or pruned."""

    fc1: nn.Linear
    fc2: nn.Linear


class EncoderLayer(Protocol):
    """A layer of a tower's encoder; a norm is an `nn.Identity` where no unit is left."""

    self_attn: Attention
    mlp: MLP
    layer_norm1: nn.Module
    layer_norm2: nn.Module

    def __call__(self, hidden_states: Tensor, attention_mask: Tensor | None) -> Tensor:
        """The residual stream [b, n, d] after the layer."""


class AnyTower(Protocol):
    """A vision tower that embeds images, whatever is known of its inside."""

    @property
    def model(self) -> PreTrainedModel:
        """The model that it is part of."""

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """All that the embeddings depend on."""

    @property
    def final(self) -> nn.Module:
        """The head or projection that the embedding comes out of."""

    @property
    def config(self) -> Any:
        """The tower's own configuration."""

    @property
    def dimension(self) -> int:
        """Length of an embedding."""

    def embeddings(self, inputs: Tensor) -> Tensor:
        """The embeddings [b, e], not normalised, of pixels [b, 3, height, width]."""


class Tokenizer(Protocol):
    """What makes token ids of texts: `transformers`' tokenizers."""

    model_max_length: int

    def __call__(self, text: list[str], **options: Any) -> Any:
        """A dictionary with `input_ids` [b, n] and perhaps `attention_mask`."""


class ImageProcessor(Protocol):
    """What makes pixels of images: `transformers`' image processors."""

    def __call__(self, images: Sequence[Any], **options: Any) -> Any:
        """A dictionary with `pixel_values` [b, 3, height, width]."""

    def to_dict(self) -> dict[str, Any]:
        """Its settings, as its file has them."""

    def save_pretrained(self, save_directory: str | Path, /) -> Any:
        """Write it into a directory."""


class WholeProcessor(Protocol):
    """A model's processor: an image processor and a tokenizer, where there is one, in one."""

    image_processor: ImageProcessor
    tokenizer: Tokenizer | None

    def __call__(self, *, images: Sequence[Any], **options: Any) -> Any:
        """A dictionary with `pixel_values` [b, 3, height, width]."""

    def save_pretrained(self, save_directory: str | Path, /) -> Any:
        """Write it into a directory."""


Processor = WholeProcessor | ImageProcessor
"""What prepares a model's images, and perhaps its texts."""
