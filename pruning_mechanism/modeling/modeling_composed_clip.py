"""CLIPs composed of encoders that other libraries made: students, and dual encoders.

Beside `modeling_pruned_clip`, whose models come from transformers' own. Here a model is an image
encoder that is taken as a whole (`composed_encoders`), a projection into the embedding space, and
perhaps a text encoder. Rules that look into a tower's layers don't apply; alignment and training
do, and any such model is a stage.

The files of this folder need torch and transformers, and these models the library that their image
encoder comes from; `save_pretrained` copies the files into the checkpoint.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.clip.modeling_clip import CLIPOutput, CLIPVisionModelOutput

from .aligned_projection import AlignedProjection
from .composed_encoders import ImageEncoder, check_text, check_vision, text_encoder
from .open_clip_encoders import make_mask
from .zero_shot_class import FoundByPipelines


class ComposedClipVisionConfig(PreTrainedConfig):
    """An image encoder by its library's name of it, and the projection behind it.

    `arguments` are those of the library's maker, `hidden_size` is the length of its features. A
    projection is linear in the features and in `random_features` of them; without one (`projected`
    false) the features are the embedding. `reparameterized`: branches that only training needs are
    merged.
    """

    model_type = "composed_clip_vision_model"
    base_config_key = "vision_config"

    library: str = "timm"
    architecture: str = "mobilenetv3_small_100"
    arguments: dict[str, Any] | None = None
    image_size: int = 224
    num_channels: int = 3
    hidden_size: int = 1024
    projection_dim: int = 512
    projected: bool = True
    random_features: int = 0
    sigmoid_attention: bool = False
    reparameterized: bool = False


class ComposedClipTextConfig(PreTrainedConfig):
    """A text encoder, and the projection behind it.

    Of transformers' it is a configuration (`encoder`) and a pooling; the projection is linear, or
    has a hidden layer of `projection_hidden` units. One of open_clip's holds its own pooling and
    projection; `arguments` are what open_clip makes it by, `pad_id` is the token that it was
    trained to see where a text has ended.
    """

    model_type = "composed_clip_text_model"
    base_config_key = "text_config"

    library: str = "transformers"
    encoder: dict[str, Any] | None = None
    arguments: dict[str, Any] | None = None
    pad_id: int = 0
    pooling: str = "mean"
    hidden_size: int = 384
    projection_dim: int = 512
    projected: bool = False
    projection_hidden: int = 0
    vocab_size: int = 30522
    max_position_embeddings: int = 256


class ComposedClipConfig(PreTrainedConfig):
    """An image encoder and a text encoder that embed into one space."""

    model_type = "composed_clip"
    sub_configs_defaults: ClassVar[dict[str, Any]] = {
        "vision_config": ComposedClipVisionConfig,
        "text_config": ComposedClipTextConfig,
    }
    sub_configs: ClassVar[dict[str, Any]] = sub_configs_defaults

    vision_config: dict[str, Any] | PreTrainedConfig | None = None
    text_config: dict[str, Any] | PreTrainedConfig | None = None
    projection_dim: int = 512
    logit_scale_init_value: float = 2.6592


class ComposedModel(FoundByPipelines, PreTrainedModel):
    """What both models share: how they are loaded, and how they embed images."""

    base_model_prefix = ""
    main_input_name = "pixel_values"
    _supports_sdpa = True  # each encoder chooses its attention itself
    accepts_loss_kwargs = False
    config: Any
    vision_model: ImageEncoder
    visual_projection: nn.Module

    def _init_weights(self, module: Any) -> None:
        """Leave what the libraries initialised; buffers that no file holds are made anew."""
        if hasattr(module, "init_non_persistent_buffers"):
            module.init_non_persistent_buffers()
        make_mask(module)

    def _compose_images(self, config: Any) -> None:
        check_vision(config)
        self.vision_model = ImageEncoder(config)
        self.visual_projection = projection_of(config)

    def get_image_features(
        self, pixel_values: Tensor, return_dict: bool | None = None, **_asked: Any
    ) -> BaseModelOutputWithPooling | tuple[Any, ...]:
        """Embeddings [b, e], not normalised, of pixels [b, 3, height, width]: `pooler_output`."""
        pooled = self.vision_model(pixel_values).pooler_output
        output = BaseModelOutputWithPooling(pooler_output=self.visual_projection(pooled))
        return output.to_tuple() if return_dict is False else output


def projection_of(config: Any) -> nn.Module:
    """What stands between the features of an encoder and the embedding, untrained."""
    inputs, outputs = config.hidden_size, config.projection_dim
    if not config.projected:
        return nn.Identity()
    if hidden := getattr(config, "projection_hidden", 0):
        return nn.Sequential(
            nn.Linear(inputs, hidden, bias=False), nn.GELU(), nn.Linear(hidden, outputs, bias=False)
        )
    if not hasattr(config, "random_features"):
        return nn.Linear(inputs, outputs, bias=False)
    return AlignedProjection(inputs, config.random_features, outputs)


class ComposedClipVisionModel(ComposedModel):
    """An image encoder with its projection."""

    config_class = ComposedClipVisionConfig

    def __init__(self, config: ComposedClipVisionConfig) -> None:
        super().__init__(config)
        self._compose_images(config)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self, pixel_values: Tensor, return_dict: bool | None = None, **_asked: Any
    ) -> CLIPVisionModelOutput | tuple[Any, ...]:
        """As `CLIPVisionModelWithProjection`: `image_embeds` [b, e], not normalised."""
        found: Any = self.get_image_features(pixel_values, return_dict=True)
        output = CLIPVisionModelOutput(image_embeds=found.pooler_output)
        return output.to_tuple() if return_dict is False else output


class ComposedClipModel(ComposedModel):
    """An image encoder and a text encoder; methods and outputs are `CLIPModel`'s."""

    config_class = ComposedClipConfig

    def __init__(self, config: ComposedClipConfig) -> None:
        super().__init__(config)
        vision: Any = config.vision_config
        text: Any = config.text_config
        self._compose_images(vision)
        check_text(text)
        self.text_model = text_encoder(text)
        self.text_projection = projection_of(text)
        self.logit_scale = nn.Parameter(torch.tensor(float(config.logit_scale_init_value)))
        self.post_init()  # type: ignore[no-untyped-call]

    def get_text_features(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        return_dict: bool | None = None,
        **others: Any,
    ) -> BaseModelOutputWithPooling | tuple[Any, ...]:
        """Embeddings [b, e], not normalised, of tokens [b, n]: `pooler_output`."""
        pooled = self.text_model(input_ids, attention_mask, **others).pooler_output
        output = BaseModelOutputWithPooling(pooler_output=self.text_projection(pooled))
        return output.to_tuple() if return_dict is False else output

    def forward(
        self,
        input_ids: Tensor,
        pixel_values: Tensor,
        attention_mask: Tensor | None = None,
        return_dict: bool | None = None,
        **others: Any,
    ) -> CLIPOutput | tuple[Any, ...]:
        """As `CLIPModel`: normalised embeddings, and logits of each image and text."""
        images: Any = self.get_image_features(pixel_values, return_dict=True)
        texts: Any = self.get_text_features(input_ids, attention_mask, True, **others)
        image_embeds, text_embeds = (
            normalize(found.pooler_output, dim=-1) for found in (images, texts)
        )
        logits = self.logit_scale.exp() * text_embeds @ image_embeds.T
        output = CLIPOutput(
            logits_per_image=logits.T,
            logits_per_text=logits,
            text_embeds=text_embeds,
            image_embeds=image_embeds,
        )
        return output.to_tuple() if return_dict is False else output
