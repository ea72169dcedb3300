"""What identifies an encoder: all that its embeddings depend on, and nothing else.

Stages of equal fingerprints give equal embeddings, wherever their checkpoints lie.
"""

import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from pruning_mechanism.checkpoints.identity import add_weights, computed
from pruning_mechanism.protocols import Config
from pruning_mechanism.runtimes import Runtime

# Settings of a tokenizer that say where it came from, or how it is asked to pad and truncate.
_TOKENIZER_PROVENANCE = (
    "name_or_path",
    "added_tokens_decoder",
    "auto_map",
    "processor_class",
    "tokenizer_class",
    "backend",
    "is_local",
    "local_files_only",
)


def described(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """All that the tokens of a text depend on, except how the last call truncated and padded."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        entries = json.loads(backend.to_str())
        return {k: v for k, v in entries.items() if k not in ("truncation", "padding")}
    # one that is written in Python: its vocabulary's files, and what it was made with
    with tempfile.TemporaryDirectory() as directory:
        files = {
            Path(name).name: hashlib.sha256(Path(name).read_bytes()).hexdigest()
            for name in tokenizer.save_vocabulary(directory)
        }
    settings = {
        name: value
        for name, value in tokenizer.init_kwargs.items()
        if name not in _TOKENIZER_PROVENANCE and not name.endswith("_file")
    }
    return {
        "class": type(tokenizer).__name__,
        "files": files,
        "settings": {name: str(value) for name, value in settings.items()},
        "added": {str(token): number for token, number in tokenizer.get_added_vocab().items()},
    }


def fingerprint(towers: Sequence[nn.Module], config: Config, preparation: dict[str, Any]) -> str:
    """SHA-256 of weights, of what a configuration computes, and of how its inputs are prepared.

    In hexadecimal, the same in every process and on every device.
    """
    digest = hashlib.sha256()
    for described in (computed(config), preparation):
        digest.update(json.dumps(described, sort_keys=True, default=str).encode())
    for tower in towers:
        add_weights(digest, tower)
    return digest.hexdigest()


def computed_in(own: str, runtime: Runtime | None) -> str:
    """A tower's fingerprint where a runtime computes it.

    In float32 that is its own: programs differ by rounding alone. In bfloat16 embeddings depend on
    what computes them, in int8 on the quantised graph as well.
    """
    if runtime is None or runtime.dtype == "float32":
        return own
    parts = [own, runtime.name, runtime.dtype, runtime.content]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
