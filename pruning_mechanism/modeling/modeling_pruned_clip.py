"""CLIPs, and models like it, whose vision or text tower has been made smaller.

Every smaller tower is an instance of the classes here, whatever made it smaller: `pruned_layers`
says what a layer may lose, `token_rules` how a tower may have fewer tokens and layers, each rule in
a file of its own, `reduced_tower` and `reduced_text` the way through such a tower, `consistency`
what configurations may say. The files of this folder need torch and transformers only, and each
other by relative imports: `save_pretrained` copies them into the checkpoint, which therefore loads
with `trust_remote_code=True` on a machine that has never heard of this project.

Modifications to transformers' models, the same for every family: the tower configurations take
`PrunedWidths`, those of vision towers with a class token `FewerTokens`, and those of text towers
that read the end of a text `FewerTextTokens`; `num_attention_heads` stays what it was before
pruning, so that the dense head dimension, and with it the scale of the logits, does too.
"""

from collections.abc import Callable
from typing import Any, ClassVar

from transformers import (
    AltCLIPConfig,
    AltCLIPModel,
    AltCLIPTextConfig,
    AltCLIPVisionConfig,
    ChineseCLIPConfig,
    ChineseCLIPModel,
    ChineseCLIPTextConfig,
    ChineseCLIPVisionConfig,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    MetaClip2Config,
    MetaClip2Model,
    MetaClip2TextConfig,
    MetaClip2VisionConfig,
    MetaClip2VisionModelWithProjection,
    PreTrainedConfig,
    SiglipConfig,
    SiglipModel,
    SiglipTextConfig,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from .consistency import check_tower
from .pruned_layers import PrunedWidths, narrow_tower
from .reduced_tower import reduce_towers
from .token_rules import FewerTextTokens, FewerTokens, is_reduced
from .zero_shot_class import FoundByPipelines


class PrunedTowers:
    """A configuration of a whole model, whose towers' own are of the classes that it names.

    transformers reads their names in `sub_configs_defaults` from release 5.20 on, before that in
    `sub_configs`. Before, moreover, a family made the dense classes of whatever it was given: the
    right ones are made of these, in `__post_init__` where configurations are dataclasses.
    """

    sub_configs: ClassVar[dict[str, Any]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._make_classes()

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)  # type: ignore[misc]  # the family's own
        self._make_classes()

    def _make_classes(self) -> None:
        for name, kind in self.sub_configs.items():
            given = getattr(self, name)
            if type(given) is not kind:
                entries = given.to_dict()
                del entries["model_type"]
                made = kind(**entries)
                made._attn_implementation = given._attn_implementation
                setattr(self, name, made)


class PrunedModel(FoundByPipelines):
    """A model any of whose towers may be pruned; over a family's own model."""

    post_init: Callable[[], None]

    def __init__(self, config: PreTrainedConfig) -> None:
        for tower in (
            getattr(config, "vision_config", config),
            getattr(config, "text_config", None),
        ):
            if tower is not None:
                check_tower(tower)
        super().__init__(config)  # type: ignore[call-arg]  # the family's own
        towers = [getattr(self, name, None) for name in ("vision_model", "text_model")]
        for tower in [tower for tower in towers if tower is not None] or [self]:
            narrow_tower(tower, always=is_reduced(tower.config))
        reduce_towers(self)
        self.post_init()


class PrunedCLIPVisionConfig(CLIPVisionConfig, PrunedWidths, FewerTokens):
    """A CLIP vision tower's shape, and what its layers keep."""

    model_type = "pruned_clip_vision_model"


class PrunedCLIPTextConfig(CLIPTextConfig, PrunedWidths, FewerTextTokens):
    """A CLIP text tower's shape, and what its layers keep."""

    model_type = "pruned_clip_text_model"
    highest_ends: ClassVar[bool] = True


class PrunedCLIPConfig(PrunedTowers, CLIPConfig):
    """A CLIP either tower of which may be pruned."""

    model_type = "pruned_clip"
    sub_configs_defaults: ClassVar[dict[str, Any]] = {
        "vision_config": PrunedCLIPVisionConfig,
        "text_config": PrunedCLIPTextConfig,
    }
    sub_configs: ClassVar[dict[str, Any]] = sub_configs_defaults


class PrunedCLIPModel(PrunedModel, CLIPModel):
    """`CLIPModel` with pruned towers; the same methods and outputs."""

    config_class = PrunedCLIPConfig


class PrunedCLIPVisionModelWithProjection(PrunedModel, CLIPVisionModelWithProjection):
    """`CLIPVisionModelWithProjection`, pruned; the same methods and outputs."""

    config_class = PrunedCLIPVisionConfig


class PrunedMetaClip2VisionConfig(MetaClip2VisionConfig, PrunedWidths, FewerTokens):
    """A MetaCLIP 2 vision tower's shape, and what its layers keep."""

    model_type = "pruned_metaclip_2_vision_model"


class PrunedMetaClip2TextConfig(MetaClip2TextConfig, PrunedWidths, FewerTextTokens):
    """A MetaCLIP 2 text tower's shape, and what its layers keep."""

    model_type = "pruned_metaclip_2_text_model"
    highest_ends: ClassVar[bool] = False


class PrunedMetaClip2Config(PrunedTowers, MetaClip2Config):
    """A MetaCLIP 2 either tower of which may be pruned."""

    model_type = "pruned_metaclip_2"
    sub_configs_defaults: ClassVar[dict[str, Any]] = {
        "vision_config": PrunedMetaClip2VisionConfig,
        "text_config": PrunedMetaClip2TextConfig,
    }
    sub_configs: ClassVar[dict[str, Any]] = sub_configs_defaults


class PrunedMetaClip2Model(PrunedModel, MetaClip2Model):
    """`MetaClip2Model` with pruned towers; the same methods and outputs."""

    config_class = PrunedMetaClip2Config


class PrunedMetaClip2VisionModelWithProjection(PrunedModel, MetaClip2VisionModelWithProjection):
    """`MetaClip2VisionModelWithProjection`, pruned; the same methods and outputs."""

    config_class = PrunedMetaClip2VisionConfig


class PrunedSiglipVisionConfig(SiglipVisionConfig, PrunedWidths):
    """A SigLIP vision tower's shape, and what its layers keep."""

    model_type = "pruned_siglip_vision_model"


class PrunedSiglipTextConfig(SiglipTextConfig, PrunedWidths):
    """A SigLIP text tower's shape, and what its layers keep."""

    model_type = "pruned_siglip_text_model"


class PrunedSiglipConfig(PrunedTowers, SiglipConfig):
    """A SigLIP either tower of which may be pruned."""

    model_type = "pruned_siglip"
    sub_configs_defaults: ClassVar[dict[str, Any]] = {
        "vision_config": PrunedSiglipVisionConfig,
        "text_config": PrunedSiglipTextConfig,
    }
    sub_configs: ClassVar[dict[str, Any]] = sub_configs_defaults


class PrunedSiglipModel(PrunedModel, SiglipModel):
    """`SiglipModel` with pruned towers; the same methods and outputs."""

    config_class = PrunedSiglipConfig


class PrunedSiglipVisionModel(PrunedModel, SiglipVisionModel):
    """`SiglipVisionModel`, pruned; the same methods and outputs."""

    config_class = PrunedSiglipVisionConfig


class PrunedAltCLIPVisionConfig(AltCLIPVisionConfig, PrunedWidths, FewerTokens):
    """An AltCLIP vision tower's shape, and what its layers keep."""

    model_type = "pruned_altclip_vision_model"


class PrunedAltCLIPConfig(PrunedTowers, AltCLIPConfig):
    """An AltCLIP with a pruned vision tower and an ordinary text tower."""

    model_type = "pruned_altclip"
    sub_configs_defaults: ClassVar[dict[str, Any]] = {
        "vision_config": PrunedAltCLIPVisionConfig,
        "text_config": AltCLIPTextConfig,
    }
    sub_configs: ClassVar[dict[str, Any]] = sub_configs_defaults


class PrunedAltCLIPModel(PrunedModel, AltCLIPModel):
    """`AltCLIPModel` with a pruned vision tower; the same methods and outputs."""

    config_class = PrunedAltCLIPConfig


class PrunedChineseCLIPVisionConfig(ChineseCLIPVisionConfig, PrunedWidths, FewerTokens):
    """A Chinese-CLIP vision tower's shape, and what its layers keep."""

    model_type = "pruned_chinese_clip_vision_model"


class PrunedChineseCLIPConfig(PrunedTowers, ChineseCLIPConfig):
    """A Chinese-CLIP with a pruned vision tower and an ordinary text tower."""

    model_type = "pruned_chinese_clip"
    sub_configs_defaults: ClassVar[dict[str, Any]] = {
        "vision_config": PrunedChineseCLIPVisionConfig,
        "text_config": ChineseCLIPTextConfig,
    }
    sub_configs: ClassVar[dict[str, Any]] = sub_configs_defaults


class PrunedChineseCLIPModel(PrunedModel, ChineseCLIPModel):
    """`ChineseCLIPModel` with a pruned vision tower; the same methods and outputs."""

    config_class = PrunedChineseCLIPConfig
