"""A model as an encoder of images and of texts, whatever is known of its inside.

Above `tower`: everything that only embeds goes by `tower_of`, and works for towers whose layers no
rule knows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from pruning_mechanism.families import family_of, tower_config
from pruning_mechanism.modeling.pruned_layers import FamilyModule
from pruning_mechanism.protocols import AnyTower, Tokenizer
from pruning_mechanism.tower import Inputs, Tower


@dataclass(frozen=True)
class WholeTower:
    """A vision tower that is taken as a whole, as `ComposedClipModel` has it."""

    model: PreTrainedModel

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """The encoder and the projection."""
        whole: FamilyModule = self.model
        return (whole.vision_model, whole.visual_projection)

    @property
    def final(self) -> nn.Module:
        """The projection that the embedding comes out of."""
        return self.modules[1]

    @property
    def config(self) -> Any:
        """The tower's own configuration."""
        return tower_config(self.model.config, "vision")

    @property
    def dimension(self) -> int:
        """Length of an embedding."""
        size: int = self.config.projection_dim if self.config.projected else self.config.hidden_size
        return size

    def embeddings(self, inputs: Inputs) -> Tensor:
        """The embeddings [b, e], not normalised, of pixels [b, 3, height, width]."""
        encoder, projection = self.modules
        embeddings: Tensor = projection(encoder(inputs).pooler_output)
        return embeddings


def layered(model: PreTrainedModel) -> bool:
    """Whether rules know the layers of a model's vision tower.

    Raises:
        TowerError: it belongs to no family that fits.
    """
    return family_of(model.config).vision is not None


def tower_of(model: PreTrainedModel) -> AnyTower:
    """The vision tower of a model, to embed images with.

    Raises:
        TowerError: as `Tower.of`.
    """
    return Tower.of(model) if layered(model) else WholeTower(model)


def tokenise(
    model: PreTrainedModel, tokenizer: Tokenizer, texts: Sequence[str]
) -> dict[str, Tensor]:
    """Texts as the model's text tower takes them, on its device; long ones are cut off.

    Padded to the longest of them, or, where the tower reads the last token and so sees the
    padding, to the context length, as such towers were trained.
    """
    text = family_of(model.config).text
    sees_padding = text is not None and text.pooling == "last"
    longest = tower_config(model.config, "text").max_position_embeddings
    tokens = tokenizer(
        list(texts),
        padding="max_length" if sees_padding else True,
        truncation=True,
        max_length=min(longest, tokenizer.model_max_length),
        return_tensors="pt",
    )
    return {name: tensor.to(model.device) for name, tensor in tokens.items()}


def image_embeddings(model: PreTrainedModel, pixels: Tensor) -> Tensor:
    """The vision tower's embeddings [b, e], not normalised, of pixels [b, 3, height, width]."""
    return tower_of(model).embeddings(pixels)


def text_embeddings(model: PreTrainedModel, tokens: Mapping[str, Tensor]) -> Tensor:
    """The text tower's embeddings [b, e], not normalised, of what `tokenise` gives.

    Text towers that can't be pruned encode too.

    Raises:
        TowerError: the model is a vision tower alone.
    """
    if family_of(model.config).text is None:
        whole: FamilyModule = model
        embeddings: Tensor = whole.get_text_features(**tokens, return_dict=True).pooler_output
        return embeddings
    return Tower.of(model, "text").embeddings(tokens)
