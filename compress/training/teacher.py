"""What a teacher makes of views of images and of captions, computed once and kept on disk.

Embeddings are kept in this user's cache, by what they depend on: the teacher's weights, how its
images or texts are prepared, the images or captions themselves, and the view. A training that is
taken up again, or another one on the same images, doesn't compute them anew.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import normalize
from tqdm import tqdm

from compress.calibrating.calibration import Calibration
from compress.errors import UserError
from compress.making.source import Source
from compress.training.processes import first_alone
from compress.training.recipe import Recipe
from compress.training.views import Captions, View, views_of
from pruning_mechanism.protocols import Processor
from pruning_mechanism.user_cache import cache_file, keep

_NAME = "embeddings"
TEXTS = 64
"""Captions that are computed at once."""


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


@dataclass(frozen=True)
class Teaching:
    """What a first stage is to learn.

    `embeddings` [n, views, e] are the teacher's of each image, `captions` those of the images'
    captions, where they count. `identity` says what all of it depends on, `teacher` who teaches.
    """

    embeddings: Tensor
    captions: Captions | None
    identity: Mapping[str, Any]
    teacher: str = "the full tower"


def by_full_tower(source: Source, recipe: Recipe, captions: Captions | None = None) -> Teaching:
    """The full tower teaches: its embeddings of the calibration images, view by view.

    Raises:
        UserError: they are not finite.
    """
    images, full = digest(source.calibration), source.full
    views = views_of(len(source.calibration), recipe.views, recipe.flips)
    with first_alone(source.calibration.device):
        embeddings = full_embeddings(source, views, images)
    identity = {"full": full.fingerprint, "images": images}
    return Teaching(embeddings, captions, identity)


def full_embeddings(source: Source, views: Sequence[View], images: str) -> Tensor:
    """The full tower's embeddings of views of the calibration images, float32 [n, views, e].

    Args:
        source: the calibration images, and the full tower.
        views: how each image is seen.
        images: their `digest`.

    Raises:
        UserError: they are not finite.
    """
    full = source.full
    names = {
        view: identified(
            weights=full.fingerprint,
            prepared=prepared_by(full.processor),
            images=images,
            view=view.called,
            device=source.calibration.device,  # another device rounds otherwise
        )
        for view in views
    }
    found = {view: _kept(names[view], len(source.calibration)) for view in views}
    missing = [view for view in views if found[view] is None]
    if missing:
        made = torch.cat(list(_made(source, missing)), 1)
        for view, own in zip(missing, made, strict=True):
            found[view] = keep_embeddings(names[view], own, full.path)
    return torch.stack([own for own in found.values() if own is not None], 1)


def keep_embeddings(name: str, made: Tensor, teacher: str) -> Tensor:
    """Embeddings [n, e] that a teacher has made, kept under a name.

    Raises:
        UserError: they are not finite.
    """
    if not made.isfinite().all():
        raise UserError(f"the embeddings of {teacher} are not finite: is the checkpoint damaged?")
    made = made.contiguous()
    keep(_file(name), lambda path: save_file({_NAME: made}, path))
    return made


def _kept(name: str, number: int) -> Tensor | None:
    """Embeddings [n, e] that are kept under a name, if they are of so many."""
    with suppress(OSError, RuntimeError, SafetensorError, KeyError):  # RuntimeError: no home
        found = load_file(cache_file(_file(name)))[_NAME]
        if found.ndim == 2 and len(found) == number:
            return found
    return None


def _file(name: str) -> str:
    return f"{_NAME}/{name}.safetensors"


@torch.no_grad()
def _made(source: Source, views: Sequence[View]) -> Iterator[Tensor]:
    """Embeddings [views, b, e] of batch after batch."""
    images = source.full_images
    done = 0
    for batch in images.batches("teacher"):
        rows = range(done, done := done + len(batch.pixels))
        seen = (view.of(batch.pixels, rows) for view in views)
        yield torch.stack([source.full.tower.embeddings(view).float().cpu() for view in seen])


def caption_embeddings(
    encode: Callable[[list[str]], Tensor],
    captions: Sequence[Sequence[str]],
    teacher: Mapping[str, Any],
    most_alike: float = 1.0,
) -> Captions:
    """The embeddings of the images' captions, without those of an image that say the same.

    Args:
        encode: texts → embeddings [b, e].
        captions: of each image, one at least.
        teacher: what identifies the text encoder.
        most_alike: cosine from which on a caption says the same as one before it.

    Raises:
        UserError: an image has no caption, or embeddings are not finite.
    """
    if not all(captions):
        raise UserError("some images have no caption: name a corpus whose images all have one")
    flat = [text for several in captions for text in several]
    name = identified(texts=hashlib.sha256(json.dumps(flat).encode()).hexdigest(), **teacher)
    found = _kept(name, len(flat))
    if found is None:
        with tqdm(total=len(flat), desc="captions", unit="caption", leave=None) as bar:
            parts = []
            for start in range(0, len(flat), TEXTS):
                parts.append(encode(flat[start : start + TEXTS]).float().cpu())
                bar.update(len(parts[-1]))
        found = keep_embeddings(name, torch.cat(parts), "the text encoder")
    several = torch.tensor([len(texts) for texts in captions])
    if most_alike < 1:
        stay = [distinct(own, most_alike) for own in found.split(several.tolist())]
        found = found[torch.cat(stay)]
        several = torch.tensor([int(kept.sum()) for kept in stay])
    return Captions(found, several.cumsum(0) - several, several)


def distinct(embeddings: Tensor, most_alike: float) -> Tensor:
    """Which captions of one image say something new, bool [c]: the first always does.

    Args:
        embeddings: of its captions [c, e].
        most_alike: cosine to one that stays from which on a caption says the same.
    """
    similar = normalize(embeddings.float(), dim=1)
    similar = similar @ similar.T
    stays: list[int] = []
    for number in range(len(embeddings)):
        if not stays or similar[number, stays].max() < most_alike:
            stays.append(number)
    kept = torch.zeros(len(embeddings), dtype=torch.bool)
    kept[stays] = True
    return kept


def by_captions(
    images: str, captions: Captions, views: int, teacher: Mapping[str, Any]
) -> Teaching:
    """The captions teach: each image is to lie where the mean of its captions does.

    Args:
        images: their `digest`.
        captions: of all images.
        views: how many of each image; all are to lie at the same place.
        teacher: what identifies the text encoder.
    """
    directions = normalize(captions.embeddings, dim=1)
    owners = torch.arange(len(captions.several)).repeat_interleave(captions.several)
    total = torch.zeros(len(captions.several), directions.shape[1])
    mean = normalize(total.index_add(0, owners, directions), dim=1)
    return Teaching(
        mean[:, None].expand(-1, views, -1),
        captions,
        {"texts": dict(teacher), "images": images},
        "the captions",
    )
