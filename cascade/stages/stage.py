"""A stage: one CLIP checkpoint, dense or smaller, as an encoder of images and of queries.

Between the checkpoint and the cascade. `Stage` runs a checkpoint; a `Cascade` takes anything that
has the four members of `Encoder`.
"""

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from cascade.stages.fingerprints import computed_in, described, fingerprint
from cascade.stages.images import ImageSource
from cascade.stages.preparing import Preparation, Prepared
from cascade.stages.reading import reads_of
from cascade.stages.running import InRuntime, asked_of, running
from corpora.decoding.reads import Reads, Tally, known
from corpora.pixels.ahead import TOGETHER
from pruning_mechanism import (
    TowerError,
    check_belongs,
    image_embeddings,
    load,
    load_processor,
    text_embeddings,
    tokenise,
    tower_of,
)
from pruning_mechanism.attention import check_attention, choose_attention
from pruning_mechanism.costs.conditions import settle_memory
from pruning_mechanism.protocols import Processor


class Encoder(Protocol):
    """What a cascade asks of a stage.

    `name` and `text_name` say which embeddings are interchangeable; plain attributes do as well.
    `encode_images` raises `UnreadableImage` if any image is one.
    """

    @property
    def name(self) -> str:
        """Equal where image embeddings are."""

    @property
    def text_name(self) -> str:
        """Equal where text embeddings are."""

    def encode_images(self, images: Sequence[ImageSource]) -> Tensor:
        """L2-normalised float32 [n, d] on the CPU."""

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """L2-normalised float32 [n, d] on the CPU."""


class NoTextTowerError(TowerError):
    """A vision tower alone, to which no text tower is lent."""


class Stage:
    """A CLIP checkpoint as a stage of a cascade.

    Attributes:
        model: the CLIP, or the vision tower with its projection.
        batch_size: images or texts that pass through a tower at once.
        attention: the implementation of the vision tower's attention, with the measured seconds if
            it was chosen by them.
        preparation: opens and prepares images; what of it is said beside the stage's name are
            `reads` and `tally`.
        runs_in: what computes the vision tower, and in which type, with the measured seconds if it
            was chosen by them.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: Processor,
        batch_size: int = 32,
        texts: "Stage | None" = None,
        attention: str | None = None,
        without_texts: bool = False,
        reads: Reads = "full",
        in_runtime: InRuntime | None = None,
    ) -> None:
        """Make a stage of a loaded model; see `load` for the usual way.

        Args:
            model: a CLIP or its vision tower, dense or pruned, as `pruning_mechanism.load` gives.
            processor: its CLIPProcessor, or image processor.
            batch_size: images or texts that pass through a tower at once.
            texts: the stage whose text tower encodes the queries; by default this model's own.
            attention: as in `load`; it is set in the model.
            without_texts: as in `load`.
            reads: how much of a file is read: see `corpora.decoding.reads`.
            in_runtime: what computes the vision tower in the model's place, as `load` finds it.

        Raises:
            NoTextTowerError: the model has no text tower and none is lent to it.
            TowerError: the one lent encodes to another dimension, the processor doesn't belong to
                the model, or there is no such attention.
            ValueError: `batch_size` isn't positive, or there is no such way to read.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        has_texts = texts is not None or hasattr(model, "text_model")
        if not has_texts and not without_texts:
            raise _no_text_tower()
        self.model = model.eval()
        self.batch_size = batch_size
        of_images: Any = getattr(processor, "image_processor", processor)
        self.preparation = Preparation(of_images, reads, self.device)
        self._tokenizer: PreTrainedTokenizerBase | None = getattr(processor, "tokenizer", None)
        self._text_problem = getattr(processor, "problem", None)
        self._texts = texts
        check_belongs(processor, model, texts=texts is None)
        own_texts = has_texts and texts is None
        if own_texts and self._tokenizer is None and self._text_problem is None:
            raise TowerError("this checkpoint has a text tower but no tokenizer: pass texts=STAGE")
        if texts is not None and texts.dimension != self.dimension:
            raise TowerError(
                f"the text tower lent to this vision tower gives {texts.dimension} dimensions, "
                f"but images have {self.dimension}: they don't belong together"
            )
        settle_memory()  # a 12 x 192-wide tower takes a quarter less time for it
        self.attention = choose_attention(self.model, attention, batch_size)
        self._runtime = None if in_runtime is None else in_runtime.runtime
        self.runs_in = running(self.model, in_runtime)

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: str = "cpu",
        batch_size: int = 32,
        texts: "Stage | None" = None,
        attention: str | None = None,
        without_texts: bool = False,
        reads: Reads | None = None,
        runtime: str | None = None,
        dtype: str | None = None,
    ) -> "Stage":
        """Load a checkpoint.

        Args:
            path: a directory in the Hugging Face layout, a name on the hub, or `open_clip:` and a
                name of open_clip's.
            device: where the towers run, as torch names it.
            batch_size: images or texts that pass through a tower at once.
            texts: the stage whose text tower encodes the queries; a vision-only checkpoint
                needs one.
            attention: how the vision tower computes its attention: "sdpa", "eager", or "fastest",
                the one that a measurement of a few seconds finds for this device, thread count
                and batch size; by default the one that transformers picks. Embeddings
                stay the same.
            without_texts: take a vision tower alone as it is, for images; asked to embed a text,
                it raises `NoTextTowerError`.
            reads: how much of a file is read: see `corpora.decoding.reads`. None: as the record in
                the checkpoint's directory says, in full where there is none.
            runtime: what computes the vision tower: "torch", "compile" (torch.compile),
                "onnxruntime", "openvino", or "auto", the one that a measurement finds fastest on
                this machine. Texts are always torch's. None: as the record in the checkpoint's
                directory says, torch where there is none or an attention is asked for.
            dtype: what it computes in: "float32", "float16", "bfloat16", "float8" or "int8"; None:
                what torch would, float32 on a CPU and on a GPU what is stored, and under "auto"
                bfloat16, and on a GPU float16, too where they keep embeddings. In float32 the
                stage has the same name in every runtime; in another type that is asked for its
                embeddings, and so its name, are others.

        Raises:
            StaleExportError: the export beside the weights is of what they were before.
            TowerError: `path` isn't a CLIP, it has no text tower and none is lent to it, its
                processor doesn't belong to it, there is no such attention, the runtime can't do
                what is asked, or the checkpoint's record can't be read. A tokenizer that can't be
                used here is an error only when a text is encoded.
            ValueError: `batch_size` isn't positive, or there is no such way to read.
        """
        check_attention(attention)
        asked = asked_of(path, runtime, dtype, device, attention)
        reads = reads_of(path) if reads is None else known(reads)
        model = load(path, device=device, exact=asked.exact)
        processor = load_processor(path)
        found = asked.find(model, path, batch_size)
        return cls(model, processor, batch_size, texts, attention, without_texts, reads, found)

    @cached_property
    def name(self) -> str:
        """Fingerprint of all that image embeddings depend on: vision tower and preprocessing.

        SHA-256 in hexadecimal, the same in every process, on every device and in every runtime
        that computes in float32; another one where another type was asked for.
        """
        tower = tower_of(self.model)
        own = fingerprint(tower.modules, tower.config, self.preprocessing)
        return computed_in(own, self._runtime)

    @cached_property
    def text_name(self) -> str:
        """Fingerprint of all that text embeddings depend on: text tower and tokenizer.

        Raises:
            TowerError: the tokenizer can't be used here.
        """
        if self._texts is not None:
            return self._texts.text_name
        preparation = described(self._usable_tokenizer())
        return fingerprint(self.text_modules, self.model.config.text_config, preparation)

    @property
    def computes(self) -> str | None:
        """Runtime and type, as in "openvino int8", where its embeddings are theirs alone."""
        runtime = self._runtime
        if runtime is None or runtime.dtype == "float32":
            return None
        return f"{runtime.name} {runtime.dtype}"

    @property
    def texts(self) -> "Stage | None":
        """The stage whose text tower encodes the queries; None: this model's own."""
        return self._texts

    @property
    def text_modules(self) -> list[nn.Module]:
        """The model's own text tower and its projection; none of a vision tower alone."""
        names = [name for name in ("text_model", "text_projection") if hasattr(self.model, name)]
        return [getattr(self.model, name) for name in names]

    @property
    def reads(self) -> Reads:
        """How much of a file is read."""
        return self.preparation.reads

    @property
    def tally(self) -> Tally:
        """What came of looking for thumbnails, if these are read."""
        return self.preparation.tally

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How images are prepared for the tower: the image processor's settings, and what is read.

        What is read in full isn't said, so that the names of such stages are what they were.
        """
        return self.preparation.settings

    @property
    def edge(self) -> int | None:
        """Pixels of a picture's shorter edge that the tower is given; None: all of them."""
        return self.preparation.edge

    @property
    def fallback(self) -> str | None:
        """Why the image processor is called as a whole, slowly; None: its steps alone are."""
        return self.preparation.fallback

    @property
    def dimension(self) -> int:
        """Length of an embedding."""
        return tower_of(self.model).dimension

    @property
    def device(self) -> torch.device:
        """Where the towers run."""
        device: torch.device = self.model.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """The type that the towers compute in."""
        dtype: torch.dtype = self.model.dtype
        return dtype

    def encode_images(self, images: Sequence[ImageSource]) -> Tensor:
        """Embed images: bytes, files or pictures in, L2-normalised float32 [n, d] on the CPU out.

        Raises:
            UnreadableImage: one of them can't be decoded.
        """
        with closing(self.batches(images)) as batches:
            parts = [self.encode_pixels(pixels) for pixels in batches]
        return torch.cat(parts) if parts else torch.zeros(0, self.dimension)

    def encode_batches(
        self, batches: Iterable[Sequence[ImageSource]]
    ) -> Generator[Tensor, None, None]:
        """`encode_images` of many batches, taken as they are wanted; memory stays bounded.

        Raises:
            UnreadableImage: one of the images can't be decoded.
        """
        with closing(self.preparation.batches(batches, self.device)) as ready:
            yield from map(self.encode_pixels, ready)

    def batches(self, images: Sequence[ImageSource]) -> Generator[Tensor, None, None]:
        """What `pixels` gives, batch by batch on the stage's device, made ahead of its turn.

        While a batch is encoded the next ones are opened and prepared in as many threads as torch
        has; if it has one, in this one.

        Raises:
            UnreadableImage: one of them can't be decoded or prepared.
        """
        starts = range(0, len(images), self.batch_size)
        parts = (images[start : start + self.batch_size] for start in starts)
        # there is nothing to do ahead for what is prepared, or for a handful
        opened = sum(not isinstance(image, Prepared) for image in images)
        threads = 1 if opened <= TOGETHER else None
        yield from self.preparation.batches(parts, self.device, threads)

    def pixels(self, images: Sequence[ImageSource]) -> Tensor:
        """Decode and prepare images: float32 [n, 3, height, width] on the stage's device.

        Only a few full pictures are held at once, and large files are decoded at reduced size;
        see `corpora.pixels`. What is `Prepared` in the same way is taken as it is.

        Raises:
            UnreadableImage: one of them can't be decoded or prepared.
        """
        return self.preparation.pixels(images, self.device)

    def prepare(self, image: ImageSource, source: "ImageSource | None" = None) -> Prepared:
        """Decode and prepare an image ahead of its turn, as `Preparation.prepare`; any thread may.

        Raises:
            UnreadableImage: it can't be decoded or prepared.
        """
        return self.preparation.prepare(image, source)

    @torch.inference_mode()
    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """Embed prepared images, all in one batch: [n, 3, height, width] → float32 [n, d].

        The encoder alone, without decoding: what "encoder only" seconds are measured on.
        """
        if self._runtime is not None:
            return normalised(self._runtime.embed(pixels))
        pixels = pixels.to(self.device, self.dtype)
        return normalised(image_embeddings(self.model, pixels))

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Embed queries: L2-normalised float32 [n, d] on the CPU. Long ones are cut off.

        Raises:
            TowerError: the tokenizer can't be used here.
        """
        if self._texts is not None:
            return self._texts.encode_texts(texts)
        parts = [
            self.encode_tokens(self.tokens(texts[start : start + self.batch_size]))
            for start in range(0, len(texts), self.batch_size)
        ]
        return torch.cat(parts) if parts else torch.zeros(0, self.dimension)

    def tokens(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Texts as the model's own text tower takes them: see `pruning_mechanism.tokenise`.

        Raises:
            TowerError: the model has no text tower, or the tokenizer can't be used here.
        """
        return tokenise(self.model, self._usable_tokenizer(), texts)

    @torch.inference_mode()
    def encode_tokens(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """Embed texts by the model's own text tower, all in one batch: float32 [n, d].

        The encoder alone, without the tokenizer, as `encode_pixels` is of images.

        Args:
            tokens: as `tokens` gives them.
        """
        return normalised(text_embeddings(self.model, tokens))

    def _usable_tokenizer(self) -> PreTrainedTokenizerBase:
        if not hasattr(self.model, "text_model"):
            raise _no_text_tower()
        if self._tokenizer is None:
            raise TowerError(self._text_problem)
        return self._tokenizer


def _no_text_tower() -> NoTextTowerError:
    return NoTextTowerError(
        "this checkpoint is a vision tower without a text tower: pass texts=STAGE, the stage of "
        "the whole CLIP that it was made from"
    )


def normalised(embeddings: Tensor) -> Tensor:
    """Embeddings [n, d] at length 1, in float32 on the CPU."""
    return nn.functional.normalize(embeddings.float(), dim=-1).cpu()
