"""Models from and to disk: an ordinary Hugging Face directory, never a pickle.

Beside the usual files a smaller tower's directory holds `compression.json`, which says how it was
made, and the modelling code, so that it loads where this project isn't installed. No code that lies
beside weights is run here, and nothing in a directory is believed before it is checked.
"""

import copy
import functools
import json
import logging
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForZeroShotImageClassification,
    PreTrainedConfig,
    PreTrainedModel,
)

from pruning_mechanism.checkpoints.building import HALF, build
from pruning_mechanism.checkpoints.from_open_clip.converting import directory_of
from pruning_mechanism.checkpoints.identity import weights_fingerprint
from pruning_mechanism.checkpoints.preparation import load_processor
from pruning_mechanism.checkpoints.record import RECORD, Compression, first_line, read_object
from pruning_mechanism.checkpoints.sentences import describe
from pruning_mechanism.checkpoints.weights import Weights, all_finite, file_of, listed, open_up
from pruning_mechanism.encoding import tower_of
from pruning_mechanism.families import (
    FAMILIES,
    MODEL_CLASSES,
    TowerError,
    check_fits,
    config_class,
)
from pruning_mechanism.modeling.pruned_layers import activate_in_place
from pruning_mechanism.protocols import Processor
from pruning_mechanism.tower import Tower

__all__ = [
    "Compression",
    "cast",
    "computed_dtype",
    "fingerprint",
    "in_dtype",
    "load",
    "load_processor",
    "register",
    "save",
    "stored_dtype",
    "weights_fingerprint",
]

logger = logging.getLogger(__name__)

ATTENTIONS = (None, "eager", "sdpa")
"""What a configuration may ask its attention to be computed by; other names may fetch code."""


def load(path: str | Path, device: str = "cpu", exact: bool = False) -> PreTrainedModel:
    """Load a CLIP or a model like it, dense or pruned, whole or vision-only, for inference.

    On the CPU a half-precision checkpoint is computed in float32, with a message that says so;
    elsewhere it keeps its type. Prefixes that training loops put before the names of weights are
    taken off, and what lies beside the model's own weights is left unread, each with a message.

    Args:
        path: a directory in the Hugging Face layout, a name on the hub, or a model of open_clip's
            (`checkpoints.from_open_clip`).
        device: where the model goes, as torch names it.
        exact: compute a half-precision checkpoint in float32 on every device. What compares
            embeddings that are close, or solves for weights, needs it: near 1, cosines in float16
            are 0.0005 apart.

    Raises:
        TowerError: there is no such model, its family doesn't fit, its configuration is wrong, it
            has no safetensors weights, they belong to another model or lack a part of this one, or
            one of them is NaN or infinite.
    """
    model = _loaded(directory_of(path), device, exact)
    model.config._name_or_path = str(path)
    return model


def _loaded(path: str | Path, device: str, exact: bool) -> PreTrainedModel:
    """A checkpoint in a directory or on the hub."""
    config = _read_config(path)
    weights = Weights.of(path, getattr(config, "_commit_hash", None))
    dtype = torch.float32 if exact else computed_dtype(weights.dtype, device)
    dtype = torch.promote_types(dtype, weights.dtype)
    if dtype != weights.dtype:
        where = "" if exact else " on the CPU"
        _say_once(f"a {str(weights.dtype)[6:]} checkpoint is computed in float32{where}")
    built = build(path, config, weights, dtype)
    model = built.model
    beside = weights.check_unexpected(built.unexpected, model)
    if weights.stripped:
        logger.warning(f"{path}: took {weights.stripped!r} off the names of its weights")
    if beside:
        logger.warning(f"{path}: did not read what is not part of the model: {listed(beside)}")
    _check_finite(path, model)
    tower = tower_of(model)
    if isinstance(tower, Tower):
        activate_in_place(tower.root)
    model.to(device)  # type: ignore[arg-type]  # to mypy what wraps it is no method
    model.eval()
    return model


def _check_finite(path: str | Path, model: PreTrainedModel) -> None:
    """Raise `TowerError` if a weight is NaN or infinite: nothing solved from it would be right."""
    for name, tensor in model.state_dict().items():
        if not all_finite(tensor):
            broken = tensor.numel() - int(torch.isfinite(tensor).sum())
            raise TowerError(
                f"{path}: {name} holds NaN or infinity in {broken:,} of its {tensor.numel():,} "
                "entries; download or make the checkpoint again"
            )


@functools.cache
def _say_once(message: str) -> None:
    logger.warning(message)


def computed_dtype(stored: torch.dtype, device: str | torch.device) -> torch.dtype:
    """What a checkpoint is computed in by default: float32 for half precision on the CPU."""
    return torch.float32 if stored in HALF and torch.device(device).type == "cpu" else stored


def in_dtype(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """A model in a type: itself where it is of that type, else a copy."""
    if model.dtype == dtype:
        return model
    copied = copy.deepcopy(model)
    copied.to(dtype)  # type: ignore[arg-type]  # its wrapper hides self
    return copied


def stored_dtype(path: str | Path) -> torch.dtype:
    """The type in which a checkpoint's weights are stored, as their files say."""
    return Weights.of(directory_of(path)).dtype


def cast(model: PreTrainedModel, dtype: torch.dtype) -> tuple[PreTrainedModel, tuple[str, ...]]:
    """A model in a type that it is to be stored in, and notes for its record.

    Where a weight would become infinite, or all of a tensor zero, the model is left in float32.

    Args:
        model: changed in place.
        dtype: what the checkpoint that it was made from is stored in.
    """
    for name, tensor in model.state_dict().items():
        lost = _lost(tensor, dtype) if tensor.is_floating_point() else None
        if lost:
            kind = str(dtype)[6:]
            note = f"stored in float32, not in {kind} as its base: {name} {lost} in {kind}"
            model.to(torch.float32)  # type: ignore[arg-type]  # as in load
            return model, (note,)
    model.to(dtype)  # type: ignore[arg-type]
    return model, ()


def _lost(tensor: torch.Tensor, dtype: torch.dtype) -> str | None:
    """What a tensor would lose in another type; None if it loses nothing but precision."""
    made = tensor.to(dtype)
    if not bool(made.isfinite().all()) and bool(tensor.isfinite().all()):
        return f"has an entry of {tensor.abs().max().item():.6g}, which is infinite"
    if tensor.numel() and not bool(made.any()) and bool(tensor.any()):
        return f"has no entry above {tensor.abs().max().item():.3g}, and would be all zero"
    return None


def _read_config(path: str | Path) -> PreTrainedConfig:
    directory = Path(path)
    if directory.is_dir():
        if not (directory / "config.json").is_file():
            raise TowerError(_no_model(path, "the directory has no config.json"))
        _refuse(directory, read_object(directory / "config.json"))
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(path, trust_remote_code=False)
    except Exception as error:  # a wrong entry may lead to any error inside transformers
        if "trust_remote_code" in str(error):
            raise TowerError(_needs_code(path)) from error
        raise TowerError(_no_model(path, first_line(error))) from error
    try:
        check_fits(config.model_type)
        _check_architecture(config)
    except TowerError as error:
        raise TowerError(f"{path} is {error}") from None
    for part in (config, *(getattr(config, f"{kind}_config", None) for kind in ("vision", "text"))):
        if part is not None:
            _ask_plainly(part)
    return config


def _ask_plainly(config: PreTrainedConfig) -> None:
    """Reset what a configuration says about the form of outputs: callers choose that."""
    if getattr(config, "_attn_implementation", None) not in ATTENTIONS:
        config._attn_implementation = None
    for name, usual in (
        ("return_dict", True), ("output_attentions", False), ("output_hidden_states", False),
    ):  # fmt: skip
        if getattr(config, name, usual) is not usual:
            setattr(config, name, usual)


def _no_model(path: str | Path, reason: str) -> str:
    return f"{path} is neither a model directory nor a model on the hub: {reason}"


def _needs_code(path: str | Path) -> str:
    return f"{path} needs code of its own, which lies beside its weights; such code is never run"


def _refuse(directory: Path, entries: dict[str, Any]) -> None:
    """Raise `TowerError` where transformers would fetch code or other weights."""
    model_type = entries.get("model_type")
    if model_type is not None and not isinstance(model_type, str):
        kind = type(model_type).__name__
        raise TowerError(f"{directory}: config.json: model_type must be a name, found {kind}")
    if entries.get("auto_map") and model_type not in MODEL_CLASSES:
        raise TowerError(_needs_code(directory))
    if entries.get("quantization_config"):
        raise TowerError(f"{directory} is quantised: name the checkpoint that it was made from")
    if (directory / "adapter_config.json").is_file():
        raise TowerError(
            f"{directory} holds an adapter (adapter_config.json) that is not merged: save "
            "model.merge_and_unload() of PEFT in a directory of its own"
        )


def _check_architecture(config: PreTrainedConfig) -> None:
    """Raise `TowerError` if a configuration names the class of another type of model."""
    names = getattr(config, "architectures", None) or ()
    if not isinstance(names, (list, tuple)) or not all(isinstance(entry, str) for entry in names):
        raise TowerError(
            "an unknown model: the architectures in its config.json are not a list of names"
        )
    types = {model_class.__name__: model_type for model_type, model_class in MODEL_CLASSES.items()}
    for name in names:
        if types.get(name, config.model_type) != config.model_type:
            raise TowerError(
                f"a {config.model_type!r} model by its model_type, but by its architectures a "
                f"{types[name]!r}: config.json is not as it was written"
            )


def fingerprint(path: str | Path, model: PreTrainedModel) -> str:
    """What identifies the weights: a local file's SHA-256, or the revision on the hub."""
    place = directory_of(path)
    if not Path(place).is_dir():
        return f"revision {_revision(place, model)}"
    return weights_fingerprint(place)


def _revision(path: str | Path, model: PreTrainedModel) -> str:
    """The commit of a model on the hub: fetched files lie in a folder of its name."""
    file = file_of(path, "config.json")
    if file is not None and re.fullmatch("[0-9a-f]{40}", file.parent.name):
        return file.parent.name
    return getattr(model.config, "_commit_hash", None) or "unknown"


def save(
    model: PreTrainedModel,
    directory: str | Path,
    processor: Processor,
    compression: Compression | None = None,
) -> None:
    """Write a model, its processor and how it was made as a Hugging Face directory.

    Raises:
        TowerError: a weight is NaN or infinite; nothing is written.
    """
    for name, tensor in model.state_dict().items():
        if not all_finite(tensor):
            raise TowerError(f"{name} holds NaN or infinity: {directory} is not written")
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    describe(model, Path(directory))
    if compression:
        text = json.dumps(asdict(compression), indent=2, allow_nan=False)
        (Path(directory) / RECORD).write_text(text + "\n")
    open_up(*[file for file in Path(directory).iterdir() if file.is_file()])


def register() -> None:
    """Register the pruned models with transformers' Auto classes, here and in what is saved."""
    for family in FAMILIES:
        for _, model in family.models:
            config = config_class(model)
            AutoConfig.register(config.model_type, config, exist_ok=True)
            AutoModel.register(config, model, exist_ok=True)
            if hasattr(model, "get_text_features"):
                AutoModelForZeroShotImageClassification.register(config, model, exist_ok=True)
            config.register_for_auto_class()
            model.register_for_auto_class("AutoModel")
