"""The families of CLIP-like models, and where each keeps its parts.

A family fits if its towers normalise before each sublayer and keep separate projections for
queries, keys, values and outputs: then its encoder layers have the same parts under the same names
(`self_attn`, `mlp`, `layer_norm1`, `layer_norm2`), and all that differs stands here. Everything
above asks `family_of`, and nothing branches on a family's name.
"""

from dataclasses import dataclass, fields
from typing import Any, Literal, overload

from transformers import (
    AltCLIPModel,
    ChineseCLIPModel,
    CLIPModel,
    CLIPVisionModelWithProjection,
    MetaClip2Model,
    MetaClip2VisionModelWithProjection,
    PreTrainedConfig,
    PreTrainedModel,
    SiglipModel,
    SiglipVisionModel,
)

from pruning_mechanism.modeling.modeling_composed_clip import (
    ComposedClipModel,
    ComposedClipVisionModel,
)
from pruning_mechanism.modeling.modeling_pruned_clip import (
    PrunedAltCLIPModel,
    PrunedChineseCLIPModel,
    PrunedCLIPModel,
    PrunedCLIPVisionModelWithProjection,
    PrunedMetaClip2Model,
    PrunedMetaClip2VisionModelWithProjection,
    PrunedSiglipModel,
    PrunedSiglipVisionModel,
)
from pruning_mechanism.modeling.pruned_layers import PrunedWidths
from pruning_mechanism.protocols import Config, TextConfig, TowerConfig, VisionConfig

TowerKind = Literal["vision", "text"]
Pooling = Literal["first", "attention", "end", "end or highest", "last"]
"""Which tokens make the embedding: the first (class token), all by a head that attends to them, the
first end-of-text token, the same but the highest token if the end is token 2 (as early
CLIP configurations do), the last (which may be padding)."""

WIDTHS = tuple(field.name for field in fields(PrunedWidths))
"""The entries of a tower's configuration that say what its layers keep; None, or absent: all."""


class TowerError(ValueError):
    """A checkpoint, tower or mask that can't be used, in one line for the user."""


@dataclass(frozen=True)
class TowerParts:
    """Where a model keeps the parts of one tower that stand around its encoder layers.

    `root` is an attribute of the whole model; a vision-only model may itself be the root.
    `pre_norm`, `post_norm` and `head` are attributes of the root, `projection` one of the model;
    the embedding comes out of the head or the projection, whichever there is. What there isn't has
    an empty name.
    """

    root: str
    pooling: Pooling
    post_norm: str
    pre_norm: str = ""
    head: str = ""
    projection: str = ""
    causal: bool = False


@dataclass(frozen=True)
class Family:
    """A family of models: its classes, dense and pruned, and where the towers' parts are.

    `vision` or `text` is None where the layers of that tower don't fit: it can embed, and that is
    all that is known of it. `why` says why the vision tower doesn't.
    """

    name: str
    models: tuple[tuple[type[PreTrainedModel], type[PreTrainedModel]], ...]
    vision: TowerParts | None
    text: TowerParts | None
    why: str = ""

    @property
    def model_type(self) -> str:
        """What the configuration of a whole dense model calls itself."""
        return config_class(self.models[0][0]).model_type


def config_class(model: type[PreTrainedModel]) -> type[PreTrainedConfig]:
    """The class of the configurations of a class of models."""
    if model.config_class is None:
        raise TypeError(f"{model.__name__} is no class of models that can be made")
    return model.config_class


CLASS_TOKEN = TowerParts(
    "vision_model", "first", "post_layernorm", "pre_layrnorm", projection="visual_projection"
)
FAMILIES = (
    Family(
        "CLIP",
        (
            (CLIPModel, PrunedCLIPModel),
            (CLIPVisionModelWithProjection, PrunedCLIPVisionModelWithProjection),
        ),
        CLASS_TOKEN,
        TowerParts(
            "text_model",
            "end or highest",
            "final_layer_norm",
            projection="text_projection",
            causal=True,
        ),
    ),
    Family(
        "MetaCLIP 2",
        (
            (MetaClip2Model, PrunedMetaClip2Model),
            (MetaClip2VisionModelWithProjection, PrunedMetaClip2VisionModelWithProjection),
        ),
        CLASS_TOKEN,
        TowerParts(
            "text_model", "end", "final_layer_norm", projection="text_projection", causal=True
        ),
    ),
    Family(
        "SigLIP (and SigLIP 2 of fixed resolution)",
        ((SiglipModel, PrunedSiglipModel), (SiglipVisionModel, PrunedSiglipVisionModel)),
        TowerParts("vision_model", "attention", "post_layernorm", head="head"),
        TowerParts("text_model", "last", "final_layer_norm", head="head"),
    ),
    # their text towers are BERTs, which normalise after each sublayer
    Family("AltCLIP", ((AltCLIPModel, PrunedAltCLIPModel),), CLASS_TOKEN, None),
    Family("Chinese-CLIP", ((ChineseCLIPModel, PrunedChineseCLIPModel),), CLASS_TOKEN, None),
    Family(
        "composed CLIP",
        (
            (ComposedClipModel, ComposedClipModel),
            (ComposedClipVisionModel, ComposedClipVisionModel),
        ),
        None,
        None,
        "its encoders come from other libraries and are taken as a whole",
    ),
)

_NO_PROJECTION = "it lacks the projection into the embedding space: name the whole model"
MISFITS = {
    "siglip2": "its images are lists of patches of any shape (naflex), not pixels of one size; "
    "SigLIP 2 checkpoints of fixed resolution, whose model type is 'siglip', fit",
    "altclip_vision_model": _NO_PROJECTION,
    "chinese_clip_vision_model": _NO_PROJECTION,
}
"""Why some models that are nearly CLIPs don't fit, by model type."""

MODEL_CLASSES = {
    config_class(model).model_type: model
    for family in FAMILIES
    for pair in family.models
    for model in pair
}
"""The class of each model type that fits, dense or pruned."""

_PRUNED_CLASSES = {
    config_class(model).model_type: pruned
    for family in FAMILIES
    for dense, pruned in family.models
    for model in (dense, pruned)
}


def pruned_class(config: Config) -> type[PreTrainedModel]:
    """The class that a model of this configuration becomes once a tower of it is pruned.

    Raises:
        TowerError: it isn't a whole model or vision tower of a family that fits.
    """
    check_fits(config.model_type)
    return _PRUNED_CLASSES[config.model_type]


def family_of(config: Config) -> Family:
    """The family of a configuration: a whole model's, or a tower's, dense or pruned.

    Raises:
        TowerError: it belongs to no family that fits.
    """
    model_type = config.model_type.removeprefix("pruned_")
    for family in FAMILIES:
        towers = (f"{family.model_type}_{kind}_model" for kind in ("vision", "text"))
        if model_type in (family.model_type, *towers):
            return family
    raise _misfit(model_type)


def check_fits(model_type: str) -> None:
    """Raise `TowerError`, naming the families that fit, unless models of this type can be used."""
    if model_type not in MODEL_CLASSES:
        raise _misfit(model_type)


def _misfit(model_type: str) -> TowerError:
    reason = f" ({MISFITS[model_type]})" if model_type in MISFITS else ""
    names = ", ".join(family.name for family in FAMILIES)
    model_type = model_type if len(model_type) < 60 else f"{model_type[:57]}..."
    return TowerError(f"a {model_type!r} model, not a CLIP that fits{reason}; these do: {names}")


def parts_of(config: Config, tower: TowerKind) -> TowerParts:
    """Where the family of a configuration keeps one tower's parts.

    Raises:
        TowerError: the family's tower of that kind doesn't fit.
    """
    family = family_of(config)
    parts = family.vision if tower == "vision" else family.text
    if parts is None and family.why:
        raise TowerError(
            f"the {tower} tower of a {family.name} has no layers that rules know: {family.why}; "
            "compress.align and compress.heal take it"
        )
    if parts is None:
        names = ", ".join(other.name for other in FAMILIES if other.text)
        raise TowerError(
            f"the text tower of {family.name} normalises after its sublayers, not before, and "
            f"can't be pruned; those of these can: {names}"
        )
    return parts


@overload
def tower_config(config: Config, tower: Literal["vision"]) -> VisionConfig: ...
@overload
def tower_config(config: Config, tower: Literal["text"]) -> TextConfig: ...
@overload
def tower_config(config: Config, tower: TowerKind) -> TowerConfig: ...


def tower_config(config: Config, tower: TowerKind) -> Any:
    """A tower's configuration, given a whole model's or its own."""
    return getattr(config, f"{tower}_config", None) or config
