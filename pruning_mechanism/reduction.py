"""Reduction + tower → the tower with fewer tokens, fewer layers or an aligned projection.

What `Mask` and `prune` are to widths, `Reduction` and `reduce` are to all else that makes a vision
tower cheaper. Each reduction is made on top of those before, and on top of pruning, so a chain of
rules is one model.
"""

import copy
from dataclasses import dataclass, fields
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from pruning_mechanism.costs.cost import Shape
from pruning_mechanism.families import WIDTHS, TowerError, parts_of, tower_config
from pruning_mechanism.modeling.consistency import IMAGE_SIZES, SIZES, check_fewer_tokens
from pruning_mechanism.modeling.reduced_tower import AlignedProjection, FewerTokens, is_reduced
from pruning_mechanism.surgery import rebuilt
from pruning_mechanism.tower import Tower

PER_LAYER = (*WIDTHS, "merged_per_layer", "ranked_per_layer")
"""Entries of a configuration that have one number a layer."""


@dataclass(frozen=True)
class Reduction:
    """What a vision tower is to do from now on; None: as it did.

    `layers` is how many stay, from the first, `image_size` the side of the images that it takes,
    in pixels. The others are the entries of `FewerTokens`.
    """

    layers: int | None = None
    image_size: int | None = None
    kept_patches: int | None = None
    patch_rule: str | None = None
    patch_seed: int | None = None
    merged_per_layer: tuple[int, ...] | None = None
    ranked_per_layer: tuple[int, ...] | None = None
    ranker: str | None = None
    resolutions: tuple[int, ...] | None = None
    resolution_bounds: tuple[float, ...] | None = None
    resolution_shares: tuple[float, ...] | None = None

    def check(self, config) -> None:
        """Raise `TowerError` unless the vision tower that `config` describes can be reduced so."""
        own, parts = tower_config(config, "vision"), parts_of(config, "vision")
        if parts.pooling != "first":
            raise TowerError(
                f"a {config.model_type!r} vision tower has no class token, which rules that leave "
                "out tokens or layers read the embedding off; towers of CLIP, MetaCLIP 2, AltCLIP "
                "and Chinese-CLIP have one"
            )
        layers = own.num_hidden_layers
        if self.layers is not None and not 1 <= self.layers <= layers:
            raise TowerError(f"an exit after layer {self.layers}: the tower has {layers} layers")
        for name in ("merged_per_layer", "ranked_per_layer"):
            given = getattr(self, name)
            if given is not None and (len(given) != layers or min(given) < 0):
                raise TowerError(f"{name} takes {layers} numbers from 0 on, found {list(given)}")
        known = {each.name: getattr(own, each.name, None) for each in fields(FewerTokens)}
        sizes = {name: getattr(own, name) for name in (*SIZES, *IMAGE_SIZES)}
        try:
            check_fewer_tokens(SimpleNamespace(**(sizes | known | _entries(self, own))))
        except ValueError as error:
            raise TowerError(str(error)) from error


def is_smaller(model: nn.Module) -> bool:
    """Whether the vision tower of a model is anything but the dense one it started as."""
    own = tower_config(model.config, "vision")
    return is_reduced(own) or any(getattr(own, name, None) is not None for name in WIDTHS)


def reduce(model: nn.Module, reduction: Reduction) -> nn.Module:
    """A new model whose vision tower does what `reduction` says; `model` stays as it is.

    Args:
        model: a whole model or a vision tower with a class token, dense, pruned or reduced.
        reduction: what is to change.

    Raises:
        TowerError: the tower can't be reduced so.
    """
    reduction.check(model.config)
    own = tower_config(model.config, "vision")
    entries = _entries(reduction, own)
    changed = copy.deepcopy(model)
    root = Tower.of(changed).root
    if reduction.layers is not None:
        root.encoder.layers = root.encoder.layers[: reduction.layers]
    if reduction.image_size is not None:
        _resize(root, reduction.image_size // own.patch_size)
    _set_rankers(root, own, entries)
    return rebuilt(changed, entries)


def align(model: nn.Module, projection: AlignedProjection) -> nn.Module:
    """A new model whose vision tower has this projection; `model` stays as it is.

    Raises:
        TowerError: the tower has no class token, or its sizes aren't the projection's.
    """
    Reduction().check(model.config)
    own = tower_config(model.config, "vision")
    features = 0 if projection.random is None else projection.random.out_features
    inputs = projection.linear.in_features - features
    if inputs != 2 * own.hidden_size:
        raise TowerError(
            f"the projection takes {inputs} dimensions, but class token and mean of the patches "
            f"have {2 * own.hidden_size}"
        )
    changed = copy.deepcopy(model)
    changed.visual_projection = copy.deepcopy(projection).to(changed.device, changed.dtype)
    whole, outputs = model.config is not own, projection.out_features
    if whole and outputs != changed.config.projection_dim:
        raise TowerError(
            f"the projection gives {outputs} dimensions, but the model's texts "
            f"have {changed.config.projection_dim}"
        )
    entries = {"aligned_features": features}
    # a tower alone may embed into the space of another
    return rebuilt(changed, entries if whole else entries | {"projection_dim": outputs})


def pooled_only(model: nn.Module) -> nn.Module:
    """A new model that gives [class token, mean of patches] [b, 2d] in place of embeddings.

    What an alignment is solved from; `model` may have been aligned before.
    """
    own = tower_config(model.config, "vision")
    placeholder = AlignedProjection(2 * own.hidden_size, 0, Tower.of(model).dimension)
    made = align(model, placeholder)
    made.visual_projection = nn.Identity()
    return made


def reduced_shape(config, reduction: Reduction) -> Shape:
    """The shape that the vision tower of a configuration has if reduced so."""
    changed = copy.deepcopy(config)
    own = tower_config(changed, "vision")
    for name, value in _entries(reduction, own).items():
        setattr(own, name, value)
    return Shape.of(changed)


def mac_fraction(config, reduction: Reduction) -> float:
    """Share of the dense encoder's MACs that the tower of a configuration has if reduced so."""
    dense = Shape.of(config, dense=True)
    return reduced_shape(config, reduction).encoder_macs / dense.encoder_macs


def _entries(reduction: Reduction, own) -> dict:
    """The entries of a vision tower's configuration that change."""
    given = {field.name: getattr(reduction, field.name, None) for field in fields(FewerTokens)}
    entries = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in given.items()
        if value is not None
    }
    if reduction.layers is not None:
        known = {name: getattr(own, name, None) for name in PER_LAYER} | entries
        entries |= {
            name: known[name][: reduction.layers]
            for name in PER_LAYER
            if known.get(name) is not None
        }
        entries["dense_layers"] = getattr(own, "dense_layers", None) or own.num_hidden_layers
        entries["num_hidden_layers"] = reduction.layers
    if reduction.image_size is not None:
        entries["dense_image_size"] = getattr(own, "dense_image_size", None) or own.image_size
        entries["image_size"] = reduction.image_size
    return entries


def _set_rankers(root: nn.Module, own, entries: dict) -> None:
    """Give those layers that rank by what they learn a ranker, untrained unless they had one."""
    ranker, ranked = (
        entries.get(name, getattr(own, name, None)) for name in ("ranker", "ranked_per_layer")
    )
    for index, layer in enumerate(root.encoder.layers):
        if ranker != "learned" or not ranked or not ranked[index]:
            if hasattr(layer, "ranker"):
                del layer.ranker
        elif not hasattr(layer, "ranker"):
            weight = layer.self_attn.out_proj.weight
            layer.ranker = nn.Linear(own.hidden_size, 1).to(weight.device, weight.dtype)


def _resize(root: nn.Module, side: int) -> None:
    """Interpolate a tower's positions to a square of `side` patches a side, in place."""
    embeddings = root.embeddings
    table = embeddings.position_embedding.weight
    positions = torch.cat([table[:1], interpolated(table[1:], side)])
    embeddings.position_embedding = nn.Embedding.from_pretrained(positions, freeze=False)
    embeddings.position_embedding.weight.requires_grad_(table.requires_grad)
    embeddings.position_ids = torch.arange(len(positions), device=table.device)[None]


def interpolated(positions: Tensor, side: int) -> Tensor:
    """Positions [s * s, d] of a square grid at another one, [side * side, d]: bicubic.

    As transformers interpolates them when it is given images of another size.
    """
    old = round(len(positions) ** 0.5)
    if old == side:
        return positions
    grid = positions.detach().float().T.reshape(1, -1, old, old)
    grid = interpolate(grid, (side, side), mode="bicubic", align_corners=False)
    return grid[0].flatten(1).T.to(positions.dtype)
