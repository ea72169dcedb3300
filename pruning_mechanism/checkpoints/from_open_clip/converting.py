"""A model of open_clip as a Hugging Face directory in this user's cache.

It is converted once, and checked on random pixels and tokens against open_clip's own answers: what
was merged for deployment, or is computed by another library, answers as it was trained.
"""

import copy
import functools
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from pruning_mechanism.checkpoints.from_open_clip.naming import (
    PREFIX,
    TOKENIZER,
    Wanted,
    find,
    is_open_clip,
    open_clip,
)
from pruning_mechanism.checkpoints.from_open_clip.plain import DiffersError, Made, plain
from pruning_mechanism.checkpoints.from_open_clip.preparing import own_tokenizer, processor_of
from pruning_mechanism.checkpoints.from_open_clip.whole import composed
from pruning_mechanism.checkpoints.identity import files_fingerprint
from pruning_mechanism.checkpoints.record import first_line
from pruning_mechanism.checkpoints.weights import open_up
from pruning_mechanism.encoding import image_embeddings
from pruning_mechanism.families import TowerError, tower_config
from pruning_mechanism.modeling.libraries import Module
from pruning_mechanism.user_cache import kept_directory

logger = logging.getLogger(__name__)

FORM = 1
"""Counts changes of what is made of the same weights."""
PARITY = 1e-4
"""How far an embedding may be from open_clip's, as a share of its length."""


def directory_of(path: str | Path) -> str | Path:
    """Where a checkpoint lies: a model of open_clip's as converted, any other as it is named.

    Raises:
        TowerError: it is named as one of open_clip's, and there is none such, its weights can't be
            had, or it can't be converted.
    """
    if not is_open_clip(path):
        return path
    wanted = find(str(path))
    if wanted.weights is None:
        _say_once(f"{wanted.spec}: random weights, for shapes and times alone")
    try:
        return kept_directory(f"open_clip/{_called(wanted)}", functools.partial(_write, wanted))
    except (OSError, RuntimeError) as error:
        raise TowerError(
            f"{wanted.spec}: can't be converted in this user's cache: {first_line(error)}"
        ) from error


@functools.cache
def _say_once(message: str) -> None:
    logger.warning(message)


def _called(wanted: Wanted) -> str:
    """A name that depends on all that the directory's contents do."""
    weights = files_fingerprint([wanted.weights]) if wanted.weights else "random"
    place = wanted.directory
    texts = [place / name for name in TOKENIZER if (place / name).is_file()] if place else []
    parts = {
        "form": FORM,
        "model": dict(wanted.model),
        "preprocessing": dict(wanted.preprocessing),
        "weights": weights,
        "tokenizer": files_fingerprint(texts) if texts else None,
        "versions": [version(name) for name in ("open_clip_torch", "timm", "transformers")],
    }
    key = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
    return f"{wanted.name}-{key[:16]}"


def _write(wanted: Wanted, directory: Path) -> None:
    """Convert a model and write it."""
    theirs, dtype = _opened(wanted)
    made = described(copy.deepcopy(theirs), wanted)
    found = made.kind.from_pretrained(
        None, config=made.config, state_dict=dict(made.weights), dtype=torch.float32
    ).eval()
    side = tower_config(found.config, "vision").image_size
    processor = processor_of(wanted, side)
    _check_parity(wanted, theirs, found)
    if not getattr(tower_config(found.config, "vision"), "reparameterized", False):
        found.to(dtype)  # merged branches lose more in half precision than others
    found.save_pretrained(directory)
    processor.save_pretrained(directory)
    open_up(*[file for file in directory.iterdir() if file.is_file()])


def described(theirs: Module, wanted: Wanted) -> Made:
    """What becomes of a model of open_clip's; its weights may be on the meta device.

    Raises:
        TowerError: there is no place for a part of it.
    """
    try:
        return plain(theirs, own_tokenizer(wanted))
    except DiffersError:
        pass
    try:
        return composed(theirs, wanted)
    except DiffersError as error:
        raise TowerError(f"{wanted.spec}: can't be converted: {error}") from error


def built(wanted: Wanted) -> Module:
    """A model as open_clip makes it, untrained, in whatever device torch makes tensors on.

    Raises:
        TowerError: it can't be made.
    """
    entries = copy.deepcopy(dict(wanted.model))
    entries.pop("custom_text", None)  # the same towers, in two parts in any case
    entries["vision_cfg"].pop("timm_model_pretrained", None)
    if "hf_model_name" in entries["text_cfg"]:
        entries["text_cfg"]["hf_model_pretrained"] = False
    kind = open_clip().CoCa if "multimodal_cfg" in entries else open_clip().CustomTextCLIP
    try:
        made = kind(**entries)
    except Exception as error:  # a library's own way to say what is wrong, or to miss the hub
        raise TowerError(f"{wanted.spec}: open_clip can't make it: {first_line(error)}") from error
    for tower in (made.visual, made.text):
        tower.output_tokens = False
    return made.eval()


def _opened(wanted: Wanted) -> tuple[Module, torch.dtype]:
    """A model with its weights, in float32, and the type that most of them are stored in."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = built(wanted)
    if wanted.weights is None:
        return model, torch.float32
    try:
        sizes: Counter[torch.dtype] = Counter()
        for tensor in load_file(wanted.weights).values():
            if tensor.is_floating_point():
                sizes[tensor.dtype] += tensor.numel()
        open_clip().load_checkpoint(model, str(wanted.weights))
    except Exception as error:  # as above
        raise TowerError(
            f"{wanted.spec}: its weights are not those of {wanted.name}: {first_line(error)}"
        ) from error
    return model.eval(), max(sizes, key=lambda dtype: sizes[dtype], default=torch.float32)


@torch.no_grad()
def _check_parity(wanted: Wanted, theirs: Module, found: PreTrainedModel) -> None:
    """Raise `TowerError` unless both models embed random pixels and tokens alike."""
    random = torch.Generator().manual_seed(0)
    config = tower_config(found.config, "vision")
    pixels = torch.randn(2, 3, config.image_size, config.image_size, generator=random)
    _compare(wanted, "image", image_embeddings(found, pixels), theirs.visual(pixels))
    ids, mask = _random_texts(wanted, theirs.text, random)
    own: Any = found
    texts = own.get_text_features(input_ids=ids, attention_mask=mask).pooler_output
    _compare(wanted, "text", texts, theirs.text(ids))


def _random_texts(
    wanted: Wanted, text: Module, random: torch.Generator
) -> tuple[Tensor, Tensor | None]:
    """Tokens [2, n] of two texts, one shorter, as open_clip pads them, and which are no padding.

    A tower that reads the last token of all sees no mask.
    """
    asked: Mapping[str, Any] = wanted.text
    length = asked.get("context_length", 77)
    padding: int = text.config.pad_token_id if hasattr(text, "config") else text.pad_id
    last = text.vocab_size - 1
    ids = torch.randint(3, max(4, last), (2, length), generator=random)
    end: int = text.eos_id if asked.get("pool_type") == "eos" else last
    for row, place in enumerate((length - 1, length // 2)):
        ids[row, place] = end
        ids[row, place + 1 :] = padding
    mask = torch.ones_like(ids)
    mask[1, length // 2 + 1 :] = 0
    return ids, None if asked.get("pool_type") == "last" else mask


def _compare(wanted: Wanted, what: str, found: Tensor, expected: Tensor) -> None:
    apart = ((found - expected).norm(dim=-1) / expected.norm(dim=-1)).max().item()
    if not apart <= PARITY:
        raise TowerError(
            f"{wanted.spec}: converted, its {what} embeddings are {apart:.2g} of their length from "
            f"{PREFIX[:-1]}'s, which may be {PARITY:g}: not converted"
        )
