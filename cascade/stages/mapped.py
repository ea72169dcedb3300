"""A stage whose images are taken into another model's space by a map that was learnt.

What a migrated collection begins with (`cascade.migrating`): the first stage's embeddings stay
what they cost, and a closed-form map takes them to where the new tower embeds images and texts.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import normalize

from cascade.stages.images import ImageSource
from cascade.stages.preparing import Prepared
from cascade.stages.stage import Encoder, Stage
from corpora.decoding.reads import Reads

_IMAGES_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Map:
    """From one embedding space to another: x → xW + b, at length 1.

    Attributes:
        weight: W, float32 [d, e].
        offset: b, float32 [e].
    """

    weight: Tensor
    offset: Tensor

    def __call__(self, embeddings: Tensor) -> Tensor:
        """Embeddings float32 [n, d] → float32 [n, e] at length 1."""
        parts = [
            normalize(part @ self.weight + self.offset, dim=-1)
            for part in embeddings.float().split(_IMAGES_AT_ONCE)
        ]
        return torch.cat(parts) if parts else self.offset.new_zeros(0, len(self.offset))


class MappedStage:
    """A stage behind a map, with the text tower of the space that it leads to.

    Attributes:
        stage: what encodes images; perhaps a mapped one itself.
        map: what its embeddings go through.
        texts: the stage whose text tower encodes the queries.
    """

    def __init__(self, stage: Encoder, map: Map, texts: Encoder) -> None:
        self.stage = stage
        self.map = map
        self.texts = texts

    @cached_property
    def name(self) -> str:
        """Fingerprint of all that embeddings depend on: the stage and the map."""
        digest = hashlib.sha256(self.stage.name.encode())
        for tensor in (self.map.weight, self.map.offset):
            digest.update(str(list(tensor.shape)).encode())
            digest.update(tensor.float().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @property
    def text_name(self) -> str:
        """That of the stage that encodes the queries."""
        return self.texts.text_name

    @property
    def reads(self) -> Reads:
        """How much of a file the stage behind the map reads; in full if it doesn't say."""
        behind = self.stage
        return behind.reads if isinstance(behind, Stage | MappedStage) else "full"

    def prepare(self, image: ImageSource, source: "ImageSource | None" = None) -> Prepared:
        """Decode and prepare an image ahead of its turn, as `Stage.prepare`.

        Raises:
            UnreadableImage: it can't be decoded or prepared.
            TypeError: the stage behind the map can't do that.
        """
        behind = self.stage
        if not isinstance(behind, Stage | MappedStage):
            raise TypeError(f"a {type(behind).__name__} prepares no images ahead")
        return behind.prepare(image, source)

    def encode_images(self, images: Sequence[ImageSource]) -> Tensor:
        """Those of the stage, mapped: float32 [n, e] on the CPU, L2-normalised."""
        return self.map(self.stage.encode_images(images))

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Embed queries where the map leads to."""
        return self.texts.encode_texts(texts)


def save_maps(maps: Sequence[Map], file: Path) -> None:
    """Write maps, in the order in which embeddings go through them, as safetensors."""
    tensors = {}
    for place, each in enumerate(maps):
        tensors[f"{place}.weight"] = each.weight.float().contiguous()
        tensors[f"{place}.offset"] = each.offset.float().contiguous()
    save_file(tensors, file)


def load_maps(file: Path) -> list[Map]:
    """Read what `save_maps` wrote.

    Raises:
        ValueError: the file isn't there, or doesn't hold maps.
    """
    try:
        tensors = load_file(file)
        count = len(tensors) // 2
        maps = [Map(tensors[f"{at}.weight"], tensors[f"{at}.offset"]) for at in range(count)]
    except (OSError, SafetensorError, KeyError) as error:
        raise ValueError(f"{file} holds no maps of embeddings: {error}") from error
    return maps
