"""What the configuration of a tower may say: one home for what is checked when making and loading.

Part of every checkpoint, beside `modeling_pruned_clip`, whose models check what they are given:
a number that no rule writes would otherwise be read as another one, or be noticed in the middle of
a forward pass. What belongs to a token rule is checked by that rule.
"""

from collections.abc import Sequence
from dataclasses import fields

from transformers import PreTrainedConfig

from .checks import check_per_layer, check_range, is_whole
from .pruned_layers import PrunedWidths
from .token_rules import (
    FewerTextTokens,
    FewerTokens,
    asked_rules,
    check_registered,
    check_token_rules,
    entry_names,
)

SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
IMAGE_SIZES = ("num_channels", "image_size", "patch_size")


def check_tower(config: PreTrainedConfig) -> None:
    """Raise `ValueError`, naming the entry, unless a tower can be as its configuration says.

    Args:
        config: that of a vision or text tower, dense or not.
    """
    _check_sizes(config)
    check_registered(config)
    asked = {field.name: getattr(config, field.name, None) for field in fields(PrunedWidths)}
    widths = {name: given for name, given in asked.items() if given is not None}
    rules = asked_rules(config)
    _check_kind(config, PrunedWidths, list(widths))
    for tower, kind in (("vision", FewerTokens), ("text", FewerTextTokens)):
        of_tower = [rule for rule in rules if rule.tower == tower]
        _check_kind(config, kind, entry_names(of_tower, config))
    if widths:
        _check_widths(config, widths)
    if rules:
        check_token_rules(config)


def _check_kind(config: PreTrainedConfig, kind: type, given: list[str]) -> None:
    if given and not isinstance(config, kind):
        raise ValueError(
            f"{config.model_type!r} towers have no {', '.join(given)}: the configuration was "
            "changed after it was written"
        )


def _check_sizes(config: PreTrainedConfig) -> None:
    """Sizes that every tower has, dense ones too."""
    for name in SIZES:
        check_range(name, getattr(config, name, None), 1, required=True)
    if config.hidden_size % config.num_attention_heads:
        raise ValueError(
            f"hidden_size {config.hidden_size} is not a multiple of the "
            f"{config.num_attention_heads} num_attention_heads"
        )
    if not hasattr(config, "patch_size"):
        return
    for name in IMAGE_SIZES:
        value = getattr(config, name, None)
        sides = value if isinstance(value, (list, tuple)) and len(value) == 2 else [value]
        for side in sides:
            check_range(name, side, 1, required=True)
    if is_whole(config.image_size) and is_whole(config.patch_size):
        check_range("image_size", config.image_size, config.patch_size)


def _check_widths(config: PreTrainedConfig, widths: dict[str, Sequence[int]]) -> None:
    layers, head_dim = config.num_hidden_layers, config.hidden_size // config.num_attention_heads
    most = (config.num_attention_heads, config.intermediate_size, head_dim, head_dim)
    for field, limit in zip(fields(PrunedWidths), most, strict=True):
        check_per_layer(field.name, widths.get(field.name), layers, limit)
    heads = widths.get("heads_per_layer") or [1] * layers
    for name in ("query_key_sizes", "value_sizes"):
        for count, width in zip(heads, widths.get(name) or [1] * layers, strict=True):
            if count and not width:
                raise ValueError(
                    "a layer that keeps heads must keep a query-key and a value dimension"
                )
