"""What the configuration of a tower may say: one home for what is checked when making and loading.

Part of every checkpoint, beside `modeling_pruned_clip`, whose models check what they are given:
a number that no rule writes would otherwise be read as another one, or be noticed in the middle of
a forward pass.
"""

import math
from collections.abc import Sequence
from dataclasses import fields

from .pruned_layers import PrunedWidths
from .reduced_tower import FewerTokens

PATCH_RULES, RANKERS = ("random", "grid", "saliency"), ("attention", "learned")
"""What `patch_rule` and `ranker` may be; the first of each if nothing is said."""
SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
IMAGE_SIZES = ("num_channels", "image_size", "patch_size")
MOST_MERGED = 2**16
"""A layer asked to merge more tokens than it has merges as many as it can; beyond this it is a
mistake."""


def check_tower(config) -> None:
    """Raise `ValueError`, naming the entry, unless a tower can be as its configuration says.

    Args:
        config: that of a vision or text tower, dense or not.
    """
    _check_sizes(config)
    widths, fewer = (_given(config, kind) for kind in (PrunedWidths, FewerTokens))
    for kind, given in ((PrunedWidths, widths), (FewerTokens, fewer)):
        if given and not isinstance(config, kind):
            raise ValueError(
                f"{config.model_type!r} towers know nothing of {', '.join(given)}: the "
                "configuration is not as it was written"
            )
    if widths:
        _check_widths(config, widths)
    if fewer:
        check_fewer_tokens(config)


def check_fewer_tokens(config) -> None:
    """Raise `ValueError` unless a vision tower can do what the entries of `FewerTokens` say.

    Args:
        config: a vision tower's, or anything with its entries.
    """
    patch, size = config.patch_size, config.image_size
    if not (_whole(patch) and _whole(size)):
        raise ValueError(f"images and patches must be square, found {size!r} and {patch!r}")
    _check_cuttable(config, patch)
    patches = (size // patch) ** 2
    for name, most in (("merged_per_layer", MOST_MERGED), ("ranked_per_layer", patches)):
        _check_per_layer(name, getattr(config, name, None), config.num_hidden_layers, most)
    _check_kept(config, patches)
    _check_resolutions(config)
    if config.ranker not in (None, *RANKERS):
        raise ValueError(f"ranker is one of {RANKERS}, found {_short(config.ranker)}")
    if config.ranker is not None and getattr(config, "ranked_per_layer", None) is None:
        raise ValueError("ranker is of ranked_per_layer; no layer ranks")
    _check_range("patch_seed", config.patch_seed, 0, 2**63 - 1)
    _check_range("dense_layers", getattr(config, "dense_layers", None), config.num_hidden_layers)
    _check_range("dense_image_size", getattr(config, "dense_image_size", None), patch)
    _check_range("aligned_features", getattr(config, "aligned_features", None), 0)


def _check_sizes(config) -> None:
    """Sizes that every tower has, dense ones too."""
    for name in SIZES:
        _check_range(name, getattr(config, name, None), 1, required=True)
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
            _check_range(name, side, 1, required=True)
    if _whole(config.image_size) and _whole(config.patch_size):
        _check_range("image_size", config.image_size, config.patch_size)


def _check_widths(config, widths: dict[str, Sequence[int]]) -> None:
    layers, head_dim = config.num_hidden_layers, config.hidden_size // config.num_attention_heads
    most = (config.num_attention_heads, config.intermediate_size, head_dim, head_dim)
    for field, limit in zip(fields(PrunedWidths), most, strict=True):
        _check_per_layer(field.name, widths.get(field.name), layers, limit)
    heads = widths.get("heads_per_layer") or [1] * layers
    for name in ("query_key_sizes", "value_sizes"):
        for count, width in zip(heads, widths.get(name) or [1] * layers, strict=True):
            if count and not width:
                raise ValueError(
                    "a layer that keeps heads must keep a query-key and a value dimension"
                )


def _check_per_layer(name: str, given: object, layers: int, most: int) -> None:
    if given is None:
        return
    if not isinstance(given, (list, tuple)):
        raise ValueError(f"{name} takes {layers} numbers, found {_short(given)}")
    if len(given) != layers:
        raise ValueError(f"the tower has {layers} layers, but {name} has {len(given)} entries")
    for each in given:
        if not _whole(each) or not 0 <= each <= most:
            raise ValueError(
                f"{name} takes {layers} numbers from 0 on, up to {most}, found {_short(each)}"
            )


def _check_cuttable(config, patch: int) -> None:
    resized = [config.image_size] if getattr(config, "dense_image_size", None) is not None else []
    sizes = config.resolutions if isinstance(config.resolutions, (list, tuple)) else ()
    if config.kept_patches is not None:
        resized = [config.image_size]
    for size in (*resized, *sizes):
        if not _whole(size) or size < patch or size % patch:
            raise ValueError(
                f"images of {_short(size)} pixels can't be cut into patches of {patch}: the side "
                "must be a multiple"
            )


def _check_kept(config, patches: int) -> None:
    if config.patch_rule not in (None, *PATCH_RULES):
        raise ValueError(f"patch_rule is one of {PATCH_RULES}, found {_short(config.patch_rule)}")
    if config.kept_patches is None:
        if config.patch_rule is not None or config.patch_seed is not None:
            raise ValueError("patch_rule and patch_seed are of kept_patches; all are kept")
        return
    if config.resolutions is not None:
        raise ValueError("patches are left out of images of one size only, not of several")
    if not _whole(config.kept_patches) or not 1 <= config.kept_patches <= patches:
        raise ValueError(f"{_short(config.kept_patches)} kept patches: images have {patches}")


def _check_resolutions(config) -> None:
    bounds, shares = config.resolution_bounds, config.resolution_shares
    if config.resolutions is None:
        if bounds is not None or shares is not None:
            raise ValueError("resolution_bounds and resolution_shares are of resolutions; none are")
        return
    sizes = config.resolutions
    if not isinstance(sizes, (list, tuple)) or not sizes or list(sizes) != sorted(set(sizes)):
        raise ValueError(f"resolutions are given in ascending order, found {_short(sizes)}")
    if sizes[-1] > config.image_size:
        raise ValueError(f"a resolution of {sizes[-1]}: images have {config.image_size} pixels")
    for name, given in (("resolution_bounds", bounds), ("resolution_shares", shares)):
        listed = isinstance(given, (list, tuple)) and all(map(_number, given))
        if given is not None and not listed:
            raise ValueError(f"{name} takes finite numbers, found {_short(given)}")
    counts = len(bounds or ()), len(shares or ())
    if counts[0] < len(sizes) - 1 or counts[1] != len(sizes):
        raise ValueError(
            f"{len(sizes)} resolutions have a bound each but the last, and a share each, found "
            f"{counts[0]} and {counts[1]}"
        )
    if min(shares) < 0 or abs(sum(shares) - 1) > 1e-3:
        raise ValueError(f"resolution_shares must make up 1, found {_short(shares)}")


def _check_range(
    name: str, value: object, least: int, most: int | None = None, required: bool = False
) -> None:
    if value is None and not required:
        return
    if not _whole(value) or value < least or (most is not None and value > most):
        raise ValueError(f"{name} must be a whole number from {least} on, found {_short(value)}")


def _given(config, kind: type) -> dict[str, object]:
    """The entries of a kind that a configuration says anything in."""
    found = {field.name: getattr(config, field.name, None) for field in fields(kind)}
    return {name: value for name, value in found.items() if value is not None}


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: object) -> bool:
    return _whole(value) or (isinstance(value, float) and math.isfinite(value))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
