"""How a checkpoint's images and texts are prepared: its processor, and whether it belongs there.

Beside `checkpoint`. A processor of another model gives pixels of another size, or tokens that the
text tower never saw; code that pairs the two calls `check_belongs` first.
"""

import copy
import logging
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from transformers import AutoImageProcessor, AutoProcessor, PreTrainedModel, PreTrainedTokenizerBase
from transformers.image_processing_base import ImageProcessingMixin

from pruning_mechanism.checkpoints.from_open_clip.converting import directory_of
from pruning_mechanism.checkpoints.record import first_line, read_object
from pruning_mechanism.checkpoints.weights import file_of
from pruning_mechanism.encoding import tokenise
from pruning_mechanism.families import TowerError, family_of, tower_config
from pruning_mechanism.protocols import ImageProcessor, Processor, Tokenizer, VisionConfig

logger = logging.getLogger(__name__)

JSON_FILES = (
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "vocab.txt", "merges.txt", "spiece.model", "sentencepiece.bpe.model",
    "tokenizer.model",
)  # fmt: skip
LARGEST = 16
"""How many times larger than the tower's images a processor may make them on the way."""


class ImagesOnly:
    """The image processor of a checkpoint whose tokenizer can't be used here.

    Attributes:
        image_processor: what prepares its images.
        problem: why its texts can't be prepared, and what to do.
    """

    tokenizer: Tokenizer | None = None

    def __init__(self, image_processor: ImageProcessor, files: list[Path], problem: str) -> None:
        """Wrap an image processor; `files` are those of the tokenizer."""
        self.image_processor, self.problem, self._files = image_processor, problem, files

    def __call__(self, images: Sequence[Any], **options: Any) -> Any:
        """Prepare images, as the image processor does."""
        return self.image_processor(images=images, **options)

    def save_pretrained(self, directory: str | Path) -> None:
        """Write the image processor, and the tokenizer's files as they are."""
        self.image_processor.save_pretrained(directory)
        for file in self._files:
            shutil.copyfile(file, Path(directory) / file.name)


def load_processor(path: str | Path) -> Processor:
    """The processor of a checkpoint: images and texts, or images only for a vision-only one.

    If there is a tokenizer that can't be used, perhaps because a package is missing, the result is
    an `ImagesOnly`, with a message: it is an error only once a text is read.

    Raises:
        TowerError: the directory says nothing about how its images are prepared, or what it says
            can't be read.
    """
    path = directory_of(path)
    directory = Path(path)
    for name in JSON_FILES:
        if (directory / name).is_file():
            read_object(directory / name)
    processor: Processor | None
    processor, reason = _from(AutoProcessor, path)
    if processor is not None and not _usable(processor):
        processor, reason = None, f"{type(processor).__name__} prepares no images"
    if processor is None:
        images, other = _from(AutoImageProcessor, path)
        if images is None:
            raise TowerError(
                f"{path} has no processor that says how to prepare its images: {other}"
            )
        processor = images
        if files := [file for name in TOKENIZER_FILES if (file := file_of(path, name))]:
            problem = _tokenizer_problem(path, reason)
            logger.warning(problem)
            processor = ImagesOnly(images, files, problem)
    return processor


def _usable(processor: object) -> bool:
    return isinstance(getattr(processor, "image_processor", processor), ImageProcessingMixin)


def _from(kind: type[AutoProcessor | AutoImageProcessor], path: str | Path) -> tuple[Any, str]:
    """What an Auto class loads from a path; None, with the reason, if it fails."""
    try:
        return kind.from_pretrained(path, trust_remote_code=False), ""  # type: ignore[no-untyped-call]
    except Exception as error:  # each tokenizer and processor has its own ways to fail
        return None, " ".join(str(error).split())[:300] or type(error).__name__


def _tokenizer_problem(path: str | Path, reason: str) -> str:
    for package in ("sentencepiece", "protobuf", "tiktoken"):
        if package in reason.lower():
            return (
                f"{path}: texts can't be encoded, since its tokenizer needs {package}: "
                f"pip install {package}"
            )
    return f"{path}: texts can't be encoded, since its tokenizer can't be read: {reason}"


def resized_processor(processor: Processor, size: int) -> Processor:
    """A copy of a processor that prepares images of another size."""
    changed = copy.deepcopy(processor)
    images = getattr(changed, "image_processor", changed)
    for name in ("size", "crop_size"):
        given = getattr(images, name, None)
        if given:
            setattr(images, name, type(given)(**{key: size for key in dict(given) if given[key]}))
    return changed


def check_belongs(processor: Processor, model: PreTrainedModel, texts: bool = True) -> None:
    """Raise `TowerError` unless what a processor prepares is what a model's towers take.

    The image processor is tried on an image of a single colour. No token may lie beyond the
    vocabulary, and if the text tower looks for a token by its number, that must be the
    tokenizer's own.

    Args:
        processor: of images and texts, or of images only.
        model: a whole model or a vision tower, dense or smaller.
        texts: whether texts are to be prepared for the model's own text tower.
    """
    images = processor.image_processor if hasattr(processor, "image_processor") else processor
    if not _usable(processor):
        raise TowerError("this checkpoint doesn't say how its images are prepared")
    _check_images(images, tower_config(model.config, "vision"))
    tokenizer = getattr(processor, "tokenizer", None)
    if texts and tokenizer is not None and hasattr(model, "text_model"):
        _check_tokens(tokenizer, model)


def _check_images(processor: ImageProcessor, config: VisionConfig) -> None:
    side = config.image_size
    height, width = (side, side) if isinstance(side, int) else side
    expected = f"the vision tower takes images of {height} x {width} pixels"
    _check_declared(processor, max(height, width), expected)
    probe = PIL.Image.new("RGB", (2 * width + 2, 2 * width + 2), (90, 120, 150))
    try:
        pixels = processor(images=[probe], return_tensors="pt")["pixel_values"]
        found = tuple(pixels.shape)
    except Exception as error:  # each entry that is wrong fails in its own way
        raise TowerError(
            f"the image processor can't prepare an image: {first_line(error)}"
        ) from error
    if found != (1, config.num_channels, height, width):
        made = " x ".join(map(str, found[2:]))
        raise TowerError(
            f"the image processor makes images of {made} pixels, but {expected}: they don't "
            "belong together; name the processor of this checkpoint"
        )
    if not bool(torch.isfinite(pixels).all()):
        raise TowerError("the image processor makes pixels that are NaN or infinite")


def _check_declared(processor: ImageProcessor, side: int, expected: str) -> None:
    """Refuse sizes that would fill the memory of the machine, before they are tried out."""
    for name in ("size", "crop_size", "pad_size"):
        for value in _sides(name, getattr(processor, name, None)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise TowerError(f"the image processor's {name} must be pixels, found {value!r}")
            if value > LARGEST * side:
                raise TowerError(
                    f"the image processor's {name} is {value:,} pixels, but {expected}"
                )
    for name in ("image_mean", "image_std", "rescale_factor"):
        given = getattr(processor, name, None)
        numbers = [] if given is None else np.ravel(np.asarray(given, dtype=object)).tolist()
        for number in numbers:
            finite = isinstance(number, (int, float)) and math.isfinite(number)
            if not finite or (name == "image_std" and number <= 0):
                raise TowerError(f"the image processor's {name} can't be {given!r}")


def _sides(name: str, given: Any) -> list[Any]:
    """The numbers of pixels in a processor's size, in any of the forms that it may have."""
    if given is None:
        return []
    try:
        sides = [given] if isinstance(given, int) else list(dict(given).values())
    except (TypeError, ValueError):
        raise TowerError(f"the image processor's {name} must be pixels, found {given!r}") from None
    return [side for side in sides if side is not None]


def _check_tokens(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
    text, family = tower_config(model.config, "text"), family_of(model.config)
    if tokenizer.pad_token is None:
        raise TowerError("the tokenizer has no pad token, so texts can't be batched")
    try:
        vocabulary, added = tokenizer.get_vocab(), tokenizer.get_added_vocab()
        highest, end = max(vocabulary.values()), tokenizer.eos_token_id
        tokenise(model, tokenizer, ["a", "a a a"])
    except Exception as error:  # each tokenizer fails in its own way
        raise TowerError(f"the tokenizer can't be used: {first_line(error)}") from error
    if highest >= text.vocab_size:
        raise TowerError(
            f"the tokenizer has tokens up to number {highest:,}, but the text tower's vocabulary "
            f"has {text.vocab_size:,}: they don't belong together"
        )
    pooling = family.text.pooling if family.text else None
    if pooling in ("end", "end or highest"):
        wanted = text.eos_token_id
        if pooling == "end or highest" and wanted == 2:
            # such towers read the token of the highest number
            wanted = max(n for token, n in vocabulary.items() if token not in added or n == end)
        if end != wanted:
            raise TowerError(
                f"the tokenizer ends texts with token {end}, but the text tower reads them at "
                f"token {wanted}: they don't belong together"
            )
