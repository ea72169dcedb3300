"""Reduction + tower → the tower with fewer tokens, fewer layers or an aligned projection.

What `Mask` and `prune` are to widths, `Reduction` and `reduce` are to all else that makes a tower
cheaper. Each reduction is made on top of those before, and on top of pruning, so a chain of
rules is one model. What can be asked for is what the token rules say (`modeling.token_rules`).
"""

import copy
from dataclasses import dataclass, fields
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from pruning_mechanism.cost import Shape
from pruning_mechanism.encoding import layered, tower_of
from pruning_mechanism.families import (
    WIDTHS,
    TowerError,
    TowerKind,
    family_of,
    parts_of,
    tower_config,
)
from pruning_mechanism.modeling.aligned_projection import AlignedProjection, Alignment
from pruning_mechanism.modeling.consistency import IMAGE_SIZES, SIZES
from pruning_mechanism.modeling.modeling_composed_clip import ComposedClipVisionModel
from pruning_mechanism.modeling.patch_size import CoarserPatches
from pruning_mechanism.modeling.token_rules import (
    NAMED,
    asked_rules,
    check_token_rules,
    is_reduced,
    names_to_register,
    token_rules,
)
from pruning_mechanism.protocols import Config, TowerConfig
from pruning_mechanism.surgery import rebuilt
from pruning_mechanism.tower import Tower


@dataclass(frozen=True, init=False)
class Reduction:
    """What a tower is to do from now on; what isn't named it does as before.

    The keyword arguments are the settings of the token rules; each can be read as an attribute,
    None if it isn't asked for. Those of the rules built in:

    - `layers`: how many stay, from the first;
    - `patch_size`: side in pixels of a patch, images shrinking with it;
    - `image_size`: side in pixels of the images that the tower takes;
    - `resolutions`, `resolution_bounds`, `resolution_shares`: of `modeling.resolutions`;
    - `kept_patches`, `patch_rule`, `patch_seed`: of `modeling.patch_masking`;
    - `merged_per_layer`: of `modeling.merging`, one number for each layer;
    - `ranked_per_layer`, `ranker`: of `modeling.ranking`, one number for each layer;
    - `ranked_share_per_layer`: of `modeling.text_ranking`, one share for each layer of texts.

    Raises:
        TypeError: no token rule takes an argument of that name, or they are of both towers.
    """

    asked: tuple[tuple[str, Any], ...]

    def __init__(self, **asked: Any) -> None:
        known = _settings()
        if unknown := [name for name in asked if name not in known]:
            raise TypeError(
                f"no token rule takes {', '.join(unknown)}; these are taken: {', '.join(known)}"
            )
        given = {name: value for name, value in asked.items() if value is not None}
        object.__setattr__(self, "asked", tuple(sorted(given.items())))
        if len(towers := {known[name] for name in given}) > 1:
            raise TypeError(f"reduce {' and '.join(sorted(towers))} one after the other")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in _settings():
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return dict(self.asked).get(name)

    def __repr__(self) -> str:
        return f"Reduction({', '.join(f'{name}={value!r}' for name, value in self.asked)})"

    @property
    def tower(self) -> TowerKind:
        """Which tower it is for."""
        known = _settings()
        return next((known[name] for name, _ in self.asked), "vision")

    def check(self, config: Config) -> None:
        """Raise `TowerError` unless the tower that `config` describes can be reduced so."""
        own, parts = tower_config(config, self.tower), parts_of(config, self.tower)
        if self.tower == "text" and (own is config or not parts.causal):
            raise TowerError(
                f"a {config.model_type!r} model has no text tower that reads the embedding off "
                "the end of a text (SigLIP's reads the last token, which may be padding), as rules "
                "that leave out its tokens need; those of CLIP and MetaCLIP 2 do"
            )
        if self.tower == "vision" and parts.pooling != "first":
            raise TowerError(
                f"a {config.model_type!r} vision tower has no class token, which rules that leave "
                "out tokens or layers read the embedding off; towers of CLIP, MetaCLIP 2, AltCLIP "
                "and Chinese-CLIP have one"
            )
        reduced = _reduced(own, _entries(self, own))
        try:
            check_token_rules(reduced)
        except ValueError as error:
            raise TowerError(str(error)) from error


def _settings() -> dict[str, TowerKind]:
    """What the keyword arguments of `Reduction` may be, and of which tower each is."""
    return {name: rule.tower for rule in token_rules() for name in rule.settings()}


def is_smaller(model: PreTrainedModel, tower: TowerKind = "vision") -> bool:
    """Whether a tower of a model is anything but the dense one it started as."""
    own = tower_config(model.config, tower)
    return is_reduced(own) or any(getattr(own, name, None) is not None for name in WIDTHS)


def has_all_layers(model: PreTrainedModel) -> bool:
    """Whether a vision tower has all that its layers had at first; patches may be coarser."""
    own = tower_config(model.config, "vision")
    coarser = all(isinstance(rule, CoarserPatches) for rule in asked_rules(own))
    return coarser and all(getattr(own, name, None) is None for name in WIDTHS)


def reduce(model: PreTrainedModel, reduction: Reduction, share: bool = False) -> PreTrainedModel:
    """A new model whose tower does what `reduction` says; `model` stays as it is.

    Args:
        model: a whole model or a vision tower with a class token, dense, pruned or reduced.
        reduction: what is to change.
        share: let both have the same tensors, as far as they stay: for a model that is read only.

    Raises:
        TowerError: the tower can't be reduced so.
    """
    reduction.check(model.config)
    own = tower_config(model.config, reduction.tower)
    entries = _entries(reduction, own)
    changed, config = _copied(model, share), _reduced(own, entries)
    for rule in asked_rules(config):
        rule.fit(Tower.of(changed, reduction.tower).root, config)
    return rebuilt(changed, entries, reduction.tower)


def check_alignable(config: Config) -> None:
    """Raise `TowerError` unless the vision tower that `config` describes can be aligned."""
    if family_of(config).vision is not None:
        Reduction().check(config)


def _copied(model: PreTrainedModel, share: bool) -> PreTrainedModel:
    """A copy of a model; one that shares has modules of its own, and no tensors."""
    same = (*model.parameters(), *model.buffers()) if share else ()
    return copy.deepcopy(model, {id(tensor): tensor for tensor in same})


def align(
    model: PreTrainedModel, projection: AlignedProjection, share: bool = False
) -> PreTrainedModel:
    """A new model whose vision tower has this projection; `model` stays as it is.

    `share` is as in `reduce`.

    Raises:
        TowerError: the tower has no class token, or its sizes aren't the projection's.
    """
    check_alignable(model.config)
    own, whole_tower = tower_config(model.config, "vision"), not layered(model)
    features, inputs = projection.random_features, projection.inputs
    can_be_read = {own.hidden_size: "class"}
    if not whole_tower:
        can_be_read[2 * own.hidden_size] = "all"
    if inputs not in can_be_read:
        what = (
            f"the encoder's features have {own.hidden_size}"
            if whole_tower
            else f"class token and mean of the patches have {2 * own.hidden_size}, the class token "
            f"alone {own.hidden_size}"
        )
        raise TowerError(f"the projection takes {inputs} dimensions, but {what}")
    changed = _copied(model, share)
    changed.visual_projection = copy.deepcopy(projection).to(changed.device, changed.dtype)
    whole, outputs = model.config is not own, projection.out_features
    if whole and outputs != changed.config.projection_dim:
        raise TowerError(
            f"the projection gives {outputs} dimensions, but the model's texts "
            f"have {changed.config.projection_dim}"
        )
    entries = (
        {"random_features": features, "projected": True}
        if whole_tower
        else {
            "aligned_features": features,
            "aligned_tokens": None if can_be_read[inputs] == "all" else can_be_read[inputs],
        }
    )
    # a tower alone may embed into the space of another
    return rebuilt(changed, entries if whole else entries | {"projection_dim": outputs})


def vision_alone(model: PreTrainedModel) -> PreTrainedModel:
    """A new model that is the vision tower of one that is taken as a whole, with its projection.

    Once that is aligned to another model's embeddings, its own texts are embedded elsewhere.

    Raises:
        TowerError: the model's vision tower has layers that rules know.
    """
    if layered(model):
        raise TowerError(f"the vision tower of a {type(model).__name__} is not taken as a whole")
    own: Any = copy.deepcopy(tower_config(model.config, "vision"))
    with torch.device("meta"):
        alone: Any = ComposedClipVisionModel(own)
    encoder, projection = copy.deepcopy(tower_of(model).modules)
    alone.vision_model, alone.visual_projection = encoder, projection
    alone.config._name_or_path = model.config._name_or_path
    made: PreTrainedModel = alone.eval()
    return made


def pooled_only(model: PreTrainedModel, tokens: str | None = None) -> PreTrainedModel:
    """A new model that gives what a projection reads in place of embeddings.

    That is [class token, mean of patches] [b, 2d], the class token [b, d] or the features [b, d] of
    an encoder taken as a whole. What an alignment is solved from; `model` may have been aligned
    before. Both share their tensors.

    Args:
        model: a whole model or a vision tower.
        tokens: "all", or "class" for the class token alone; by default what an aligned projection
            of the model reads, and all where it has none.

    Raises:
        TowerError: it has no class token.
    """
    if tokens and not layered(model):
        raise TowerError(
            f"a {model.config.model_type!r} encoder is taken as a whole: an alignment reads its "
            "features, not tokens"
        )
    inputs = inputs_read(model, tokens)
    made = align(model, AlignedProjection(inputs, 0, tower_of(model).dimension), share=True)
    made.visual_projection = nn.Identity()
    return made


def inputs_read(model: PreTrainedModel, tokens: str | None = None) -> int:
    """How many numbers an alignment of a model reads off an image; `tokens` as in `pooled_only`."""
    own = tower_config(model.config, "vision")
    if not layered(model):
        return own.hidden_size
    tokens = tokens or getattr(own, "aligned_tokens", None) or "all"
    return Alignment(0, tokens).read(own.hidden_size)


def reduced_shape(config: Config, reduction: Reduction) -> Shape:
    """The shape that the tower of a configuration has if reduced so."""
    changed = copy.deepcopy(config)
    own = tower_config(changed, reduction.tower)
    for name, value in _entries(reduction, own).items():
        setattr(own, name, value)
    return Shape.of(changed, tower=reduction.tower)


def mac_fraction(config: Config, reduction: Reduction) -> float:
    """Share of the dense encoder's MACs that the tower of a configuration has if reduced so."""
    dense = Shape.of(config, dense=True, tower=reduction.tower)
    return reduced_shape(config, reduction).encoder_macs / dense.encoder_macs


def _entries(reduction: Reduction, own: Any) -> dict[str, Any]:
    """The entries of a tower's configuration that change.

    Raises:
        TowerError: the tower can't do what is asked.
    """
    asked = dict(reduction.asked)
    entries: dict[str, Any] = {}
    for rule in token_rules():
        if given := {name: asked[name] for name in rule.settings() if name in asked}:
            for name in rule.per_layer:
                _check_layers(name, given.get(name), own.num_hidden_layers)
            try:
                entries |= rule.entries(own, **given)
            except ValueError as error:
                raise TowerError(str(error)) from error
    entries = {
        name: list(value) if isinstance(value, tuple) else value for name, value in entries.items()
    }
    layers = entries.get("num_hidden_layers", own.num_hidden_layers)
    if layers < own.num_hidden_layers:
        per_layer = (*WIDTHS, *(name for rule in token_rules() for name in rule.per_layer))
        known: dict[str, Any] = {name: getattr(own, name, None) for name in per_layer} | entries
        entries |= {name: known[name][:layers] for name in per_layer if known[name] is not None}
    if named := names_to_register(asked_rules(_reduced(own, entries))):
        entries[NAMED] = named
    return entries


def _check_layers(name: str, given: Any, layers: int) -> None:
    if given is not None and (len(given) != layers or min(given) < 0):
        raise TowerError(f"{name} takes {layers} numbers from 0 on, found {list(given)}")


def _reduced(own: TowerConfig, entries: dict[str, Any]) -> SimpleNamespace:
    """The sizes and rules of a tower's configuration once these entries have changed."""
    names = [
        *SIZES,
        *IMAGE_SIZES,
        *(field.name for rule in token_rules() for field in fields(rule)),
    ]
    return SimpleNamespace(**{name: getattr(own, name, None) for name in names} | entries)
