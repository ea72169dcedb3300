"""Models from and to disk: an ordinary Hugging Face directory, never a pickle.

Beside the usual files a smaller tower's directory holds `compression.json`, which says how it was
made, and the modelling code, so that it loads where this project isn't installed.
"""

import functools
import hashlib
import json
import logging
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoProcessor

from pruning_mechanism.families import FAMILIES, MODEL_CLASSES, TowerError, check_fits
from pruning_mechanism.pruned_layers import activate_in_place
from pruning_mechanism.record import RECORD, Compression
from pruning_mechanism.tower import Tower

logger = logging.getLogger(__name__)

HALF = (torch.float16, torch.bfloat16)


def load(path: str | Path, device: str = "cpu") -> nn.Module:
    """Load a CLIP or a model like it, dense or pruned, whole or vision-only, for inference.

    On the CPU a half-precision checkpoint is computed in float32, with a message that says so;
    elsewhere it keeps its type.

    Args:
        path: a directory in the Hugging Face layout, or a name on the hub.
        device: where the model goes, as torch names it.

    Raises:
        TowerError: there is no such model, it is of no family that fits, it has no safetensors
            weights, or one of them is NaN or infinite.
    """
    config = _read_config(path)
    dtype = _dtype(config)
    if dtype in HALF and torch.device(device).type == "cpu":
        _say_once(f"a {str(dtype)[6:]} checkpoint is computed in float32 on the CPU")
        dtype = torch.float32
    try:
        model = MODEL_CLASSES[config.model_type].from_pretrained(
            path, dtype=dtype, use_safetensors=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise TowerError(f"{path} does not load as a CLIP: {_first_line(error)}") from error
    _check_finite(path, model)
    activate_in_place(Tower.of(model).root)
    return model.to(device).eval()


def _check_finite(path: str | Path, model: nn.Module) -> None:
    """Raise `TowerError` if a weight is NaN or infinite: nothing solved from it would be right."""
    for name, tensor in model.state_dict().items():
        broken = tensor.numel() - int(torch.isfinite(tensor).sum())
        if broken:
            raise TowerError(
                f"{path}: {name} holds NaN or infinity in {broken:,} of its {tensor.numel():,} "
                "entries; get the checkpoint anew"
            )


@functools.cache
def _say_once(message: str) -> None:
    logger.warning(message)


def stored_dtype(path: str | Path) -> torch.dtype:
    """The type in which a checkpoint's weights are stored, as its configuration says."""
    return _dtype(_read_config(path))


def _dtype(config) -> torch.dtype:
    dtype = getattr(config, "dtype", None) or torch.float32
    return getattr(torch, dtype) if isinstance(dtype, str) else dtype


def _read_config(path: str | Path):
    try:
        if Path(path).is_dir() and not (Path(path) / "config.json").is_file():
            raise OSError("the directory has no config.json")  # some versions guess from its name
        config = AutoConfig.from_pretrained(path)
    except (OSError, ValueError, KeyError) as error:
        raise TowerError(
            f"{path} is neither a model directory nor a model on the hub: {_first_line(error)}"
        ) from error
    try:
        check_fits(config.model_type)
    except TowerError as error:
        raise TowerError(f"{path} is {error}") from None
    return config


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


def load_processor(path: str | Path):
    """The processor of a checkpoint: images and texts, or images only for a vision-only one.

    Raises:
        TowerError: the directory says nothing about how its images are prepared.
    """
    for kind in (AutoProcessor, AutoImageProcessor):
        try:
            return kind.from_pretrained(path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = _first_line(error)
    raise TowerError(f"{path} has no processor that says how to prepare its images: {reason}")


def fingerprint(path: str | Path, model: nn.Module) -> str:
    """What identifies the weights: a local file's SHA-256, or the revision on the hub."""
    if not Path(path).is_dir():
        return f"revision {getattr(model.config, '_commit_hash', None) or 'unknown'}"
    return weights_fingerprint(path)


def weights_fingerprint(directory: str | Path) -> str:
    """What identifies the weights in a directory: the SHA-256 of its safetensors files in order.

    Raises:
        OSError: a file can't be read.
    """
    files = sorted(Path(directory).resolve().glob("*.safetensors"))
    states = [each.stat() for each in files]
    return _digest(
        tuple(
            (str(file), state.st_size, state.st_mtime_ns)
            for file, state in zip(files, states, strict=True)
        )
    )


@functools.cache
def _digest(files: tuple[tuple[str, int, int], ...]) -> str:
    """Of files with their sizes and times of change: the same file isn't read twice in a run."""
    digest = hashlib.sha256()
    for path, _, _ in files:
        with open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return f"sha256 {digest.hexdigest()}"


def save(
    model: nn.Module, directory: str | Path, processor, compression: Compression | None = None
) -> None:
    """Write a model, its processor and how it was made as a Hugging Face directory."""
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    if compression:
        text = json.dumps(asdict(compression), indent=2, allow_nan=False)
        (Path(directory) / RECORD).write_text(text + "\n")


def register() -> None:
    """Make transformers' Auto classes know the pruned models, here and in what they save."""
    for family in FAMILIES:
        for _, model in family.models:
            config = model.config_class
            AutoConfig.register(config.model_type, config, exist_ok=True)
            AutoModel.register(config, model, exist_ok=True)
            config.register_for_auto_class()
            model.register_for_auto_class("AutoModel")
