"""The full tower's embeddings of all views of some images, computed once and kept on disk.

They are kept in this user's cache, by what they depend on: the full tower's weights, how its images
are prepared, the images themselves, and the views. A training that is taken up again, or another
one on the same images, doesn't compute them anew.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from compress.calibrating.calibration import Calibration
from compress.errors import UserError
from compress.making.source import Source
from compress.training.views import view_of
from pruning_mechanism.checkpoints.checkpoint import fingerprint
from pruning_mechanism.protocols import Processor
from pruning_mechanism.user_cache import cache_file, keep

_NAME = "embeddings"


def digest(images: Calibration) -> str:
    """What identifies images: the SHA-256 of their files, in order."""
    content = hashlib.sha256()
    for image in images.files():
        data = image["bytes"] or Path(image["path"]).read_bytes()
        content.update(len(data).to_bytes(8, "big"))
        content.update(data)
    return content.hexdigest()


def prepared_by(processor: Processor) -> dict[str, Any]:
    """What decides how a processor prepares images."""
    images: Any = getattr(processor, "image_processor", processor)
    settings: dict[str, Any] = images.to_dict()
    return settings


def identified(**entries: object) -> str:
    """A name for what is identified by all of these entries together."""
    text = json.dumps(entries, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def full_embeddings(source: Source, views: int, images: str) -> Tensor:
    """The full tower's embeddings of all views of the calibration images, float32 [n, views, e].

    Args:
        source: the calibration images, and the full tower.
        views: see `compress.training.views.view_of`.
        images: their `digest`.

    Raises:
        UserError: they are not finite.
    """
    full = source.full
    name = identified(
        weights=fingerprint(full.path, full.tower.model),
        prepared=prepared_by(full.processor),
        images=images,
        views=views,
        device=source.calibration.device,  # another device rounds otherwise
    )
    file = f"{_NAME}/{name}.safetensors"
    with suppress(OSError, RuntimeError, SafetensorError, KeyError):  # RuntimeError: no home
        found = load_file(cache_file(file))[_NAME]
        if found.shape[:2] == (len(source.calibration), views):
            return found
    made = torch.cat(list(_made(source, views))).contiguous()
    if not made.isfinite().all():
        raise UserError(f"the embeddings of {full.path} are not finite: is the checkpoint damaged?")
    keep(file, lambda path: save_file({_NAME: made}, path))
    return made


@torch.no_grad()
def _made(source: Source, views: int) -> Iterator[Tensor]:
    images = replace(source.calibration, processor=source.full.processor)
    for batch in images.batches("full tower"):
        seen = (view_of(batch.pixels, view) for view in range(views))
        yield torch.stack([source.full.tower.embeddings(view).float().cpu() for view in seen], 1)
