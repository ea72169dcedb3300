"""What identifies weights, in files or in memory: their SHA-256; files are read once in a run.

Stands under `checkpoint`.
"""

import functools
import hashlib
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pruning_mechanism.modeling.pruned_layers import PrunedWidths
from pruning_mechanism.modeling.token_rules import FewerTextTokens, FewerTokens
from pruning_mechanism.protocols import Config

PROVENANCE = (
    "_commit_hash",
    "_name_or_path",
    "architectures",
    "auto_map",
    "dtype",
    "torch_dtype",
    "transformers_version",
)
"""Entries of a configuration that say where a tower came from rather than what it computes."""
_OWN = (PrunedWidths, FewerTokens, FewerTextTokens)


def computed(config: Config) -> dict[str, Any]:
    """The entries of a configuration that say what a tower computes.

    What can be done to a tower and wasn't is left out, so a tower is the same to a version that
    knows more of it, and the one that was not pruned is what it was before.
    """
    unset = {field.name for kind in _OWN for field in fields(kind)}
    entries = {
        name: value
        for name, value in config.to_dict().items()
        if name not in PROVENANCE and (name not in unset or value is not None)
    }
    entries["model_type"] = entries["model_type"].removeprefix("pruned_")
    return entries


def weights_fingerprint(directory: str | Path) -> str:
    """What identifies the weights in a directory: the SHA-256 of its safetensors files, in order.

    Raises:
        OSError: a file can't be read.
    """
    return files_fingerprint(sorted(Path(directory).resolve().glob("*.safetensors")))


def files_fingerprint(files: Iterable[Path]) -> str:
    """The SHA-256 of what files hold, one after another.

    Raises:
        OSError: a file can't be read.
    """
    states = [(file.resolve(), file.stat()) for file in files]
    return _digest(tuple((str(file), state.st_size, state.st_mtime_ns) for file, state in states))


def weights_digest(modules: Iterable[nn.Module]) -> str:
    """The SHA-256 of the weights of modules in memory, one after another, in hexadecimal."""
    digest = hashlib.sha256()
    for module in modules:
        add_weights(digest, module)
    return digest.hexdigest()


def add_weights(digest: "hashlib._Hash", module: nn.Module) -> None:
    """Add a module's weights to a digest: names, types, shapes and what they hold."""
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        weights = tensor.detach().cpu().contiguous().flatten()
        digest.update(weights.view(torch.uint8).numpy().data)


@functools.cache
def _digest(files: tuple[tuple[str, int, int], ...]) -> str:
    """SHA-256 of files; with their sizes and times of change, no file is read twice in a run."""
    digest = hashlib.sha256()
    for path, _, _ in files:
        with open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return f"sha256 {digest.hexdigest()}"
