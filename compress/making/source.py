"""What a rule starts from: a checkpoint, and the full tower that what is made of it stands before.

Stands before every rule. The checkpoint may be dense or the result of other rules; what was done to
it goes on in the record of what is made. Whatever can be checked is checked here, before the work.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from compress.calibrating.cache import Cache
from compress.calibrating.calibration import Calibration
from compress.calibrating.deploying import deployed
from compress.calibrating.device import check_device
from compress.calibrating.drawing import check_enough, drawn
from compress.calibrating.subject import Subject
from compress.choices import LEAST_IMAGES, Align, Checkpoints, Deployment, Sampling
from compress.errors import UserError
from compress.making.checkpoints import find_base, remember
from compress.making.keys import read_keys
from corpora.decoding.reads import Reads, known
from corpora.decoding.simulating import QUALITY
from pruning_mechanism import (
    Compression,
    Tower,
    TowerKind,
    check_alignable,
    check_belongs,
    is_pruned,
    layered,
    vision_alone,
)
from pruning_mechanism.checkpoints.checkpoint import computed_dtype
from pruning_mechanism.checkpoints.opened import Checkpoint
from pruning_mechanism.deployed.tower import Deployed
from pruning_mechanism.protocols import Processor
from pruning_mechanism.runtimes import DTYPES, RUNTIMES
from pruning_mechanism.widening import widened

FULL_FINGERPRINT = "target_fingerprint"
"""The entry of a record's settings that identifies another full tower than the base."""


@dataclass(frozen=True)
class Needs:
    """What a rule, and what is done after it, asks of a source.

    `layers`: a tower whose layers are known; `own`: that what is made of it is still that tower, so
    that alignment is of it; `captions`: of all images, and the tower that embeds
    them; `full`: the full tower's embeddings; `alignable`: a tower that an alignment can read;
    `images`: how many calibration images at least.
    """

    layers: bool = True
    own: bool = True
    captions: bool = False
    full: bool = False
    alignable: bool = False
    images: int = 1

    @classmethod
    def of(cls, align: Align) -> "Needs":
        """What an alignment asks for."""
        asked = align != "none"
        return cls(layers=False, full=asked, alignable=asked, images=LEAST_IMAGES if asked else 1)

    def __or__(self, other: "Needs") -> "Needs":
        """What either of two asks for."""
        return Needs(
            self.layers or other.layers,
            self.own and other.own,
            self.captions or other.captions,
            self.full or other.full,
            self.alignable or other.alignable,
            max(self.images, other.images),
        )


@dataclass(frozen=True)
class Source:
    """A checkpoint to be made smaller or cheaper.

    `kinds` are those of its towers that it is asked for, `subjects` what rules that know their
    layers take in their place. `base` is what records call the
    checkpoint that everything is made from, `chain` what has been done to it before, `seen` the
    images that was calibrated on. `settings` and `notes` are for the record of what is made, which
    is stored in `stored_dtype`, as the checkpoint is, and computed in `deployed_dtype` once it is
    loaded; None: as the model is. `deployment` is what the checkpoint was made to run in.
    """

    path: str
    model: PreTrainedModel
    processor: Processor
    full: Checkpoint
    kinds: tuple[TowerKind, ...]
    subjects: tuple[Subject, ...]
    calibration: Calibration
    sampling: Sampling
    cache: Cache
    base: str
    base_fingerprint: str
    chain: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    stored_dtype: torch.dtype | None = None
    deployed_dtype: torch.dtype | None = None
    deployment: Deployment = field(default_factory=Deployment)

    def deployed(self, model: PreTrainedModel, deployment: Deployment) -> Deployed:
        """A model where results will run: what seconds are measured of."""
        return deployed(model, deployment, self.deployed_dtype)

    def full_embeddings(self) -> Tensor:
        """The full tower's embeddings of the calibration images, float32 [n, e], computed once."""
        key: Hashable = ("full tower's embeddings", len(self.calibration))
        return self.cache.shared.once(key, self._full_embeddings)

    def reading(self, reads: Reads) -> "Source":
        """The same with so much of its files read; what becomes known of it is kept apart."""
        cache = self.cache.apart(f"reads {reads}")
        calibration = self.cache.once(
            ("calibration", reads), lambda: self.calibration.reading(reads, self.full.processor)
        )
        notes = tuple(note for note in self.notes if note != simulated(self.calibration))
        return replace(
            self,
            calibration=calibration,
            cache=cache,
            sampling=replace(self.sampling, reads=reads),
            subjects=tuple(
                replace(subject, calibration=calibration, cache=cache) for subject in self.subjects
            ),
            notes=(*notes, simulated(calibration)) if calibration.long_side else notes,
        )

    @property
    def full_images(self) -> Calibration:
        """The calibration images as the full tower takes them, whose files are read in full."""
        return replace(
            self.calibration, processor=self.full.processor, reads="full", long_side=None
        )

    @torch.no_grad()
    def _full_embeddings(self) -> Tensor:
        images = self.full_images
        tower = self.full.tower
        batches = images.batches("full tower")
        return torch.cat([tower.embeddings(batch.pixels).float().cpu() for batch in batches])


def open_source(checkpoints: Checkpoints, sampling: Sampling, needs: Needs) -> Source:
    """Load the checkpoints and draw the calibration images, having checked what can be checked.

    Raises:
        UserError, TowerError, CorpusError: something that is named can't be used.
    """
    check_enough(sampling.samples, needs.images)
    check_device(sampling.device)
    own = Checkpoint.open(checkpoints.model, sampling.device, exact=True)
    model, processor = own.model, own.processor
    has_layers = needs.layers or layered(model)
    towers = [Tower.of(model, kind) for kind in checkpoints.towers] if has_layers else []
    if needs.alignable and needs.own:
        check_alignable(model.config)
    check_text_model(checkpoints.text_model, model, own.path)
    captions = needs.captions or "text" in checkpoints.towers
    check_belongs(processor, model, texts=captions)
    full = _full_tower(checkpoints, own, needs, sampling.device)
    lent = _text_tower(checkpoints, own, sampling.device) if captions else None
    texts = lent.model if lent else None
    cache, record, stored = Cache(), own.record, own.stored_dtype
    sampling = replace(sampling, reads=sampling.reads or read_by(record, own.path))
    calibration = drawn(sampling, processor, lent, needs.images, full.processor)
    in_use = computed_dtype(stored, sampling.device)
    base = record.base_fingerprint if record else own.fingerprint
    settings: dict[str, str] = {}
    notes: tuple[str, ...] = ()
    if checkpoints.full and needs.full and full.fingerprint != base:
        settings = {FULL_FINGERPRINT: full.fingerprint}
        called = checkpoints.recorded(full.path)
        notes = (f"aligned to {called}, which isn't what it was made from",)
        if not layered(model) and hasattr(model, "text_model"):
            model, processor = vision_alone(model), image_side(processor)
            notes = (*notes, "its own texts are embedded elsewhere, and left out")
    if calibration.long_side:
        notes = (*notes, simulated(calibration))
    return Source(
        own.path,
        model,
        processor,
        full,
        checkpoints.towers,
        tuple(_subject(tower, texts, calibration, cache, in_use) for tower in towers),
        calibration,
        sampling,
        cache,
        record.base if record else checkpoints.recorded(own.path),
        base,
        record.steps if record else (),
        tuple(read_keys(own.path)),
        settings,
        notes,
        stored,
        in_use,
        Deployment() if record is None else runs_by(record, own.path),
    )


def read_by(record: Compression | None, path: str) -> Reads:
    """How much of a file the tower on record was made to read; all of it, where nothing is said.

    Raises:
        UserError: the record names no way to read that is known here.
    """
    try:
        return "full" if record is None else known(record.reads)
    except ValueError as error:
        raise UserError(f"the record of {path} can't be followed: {error}") from error


def runs_by(record: Compression, path: str) -> Deployment:
    """What the tower on record was made to run in.

    Raises:
        UserError: the record names what isn't known here.
    """
    known_runtime = record.runtime in RUNTIMES
    dtype = next((kind for kind in DTYPES if kind == record.dtype), None)
    if not known_runtime or dtype != record.dtype:
        raise UserError(
            f"the record of {path} can't be followed: it was made to run in {record.runtime!r}, "
            f"{record.dtype!r}; runtimes are {', '.join(RUNTIMES)}, types {', '.join(DTYPES)}"
        )
    return Deployment(record.runtime, dtype)


def simulated(calibration: Calibration) -> str:
    """What the record says where thumbnails were made for the calibration."""
    return (
        "the calibration images have no thumbnails: each was given one of "
        f"{calibration.long_side} pixels, a JPEG of quality {QUALITY}"
    )


def _subject(
    tower: Tower,
    texts: PreTrainedModel | None,
    calibration: Calibration,
    cache: Cache,
    in_use: torch.dtype,
) -> Subject:
    """A tower as rules score it: a pruned one with its dense widths again."""
    alive = None
    if is_pruned(tower.model, tower.kind):
        wide = widened(tower.model, tower.kind)
        tower, alive = Tower.of(wide.model, tower.kind), wide.alive
    return Subject(tower, calibration, texts, alive, cache, deployed_dtype=in_use)


def check_text_model(text_model: str | None, model: PreTrainedModel, path: str) -> None:
    """Raise `UserError` if a text tower is named for a model at `path` that has its own."""
    if text_model and hasattr(model, "text_model"):
        raise UserError(
            f"a text model is for a vision tower alone, but {path} has a text tower of its own: "
            "leave it out"
        )


def _text_tower(checkpoints: Checkpoints, own: Checkpoint, device: str) -> Checkpoint:
    """The CLIP whose text tower embeds the captions."""
    if not checkpoints.text_model:
        return own
    texts = Checkpoint.open(checkpoints.text_model, device, exact=True)
    check_belongs(texts.processor, texts.model)
    return texts


def _full_tower(checkpoints: Checkpoints, own: Checkpoint, needs: Needs, device: str) -> Checkpoint:
    """The full tower; the checkpoint's own, where nobody needs another.

    Where they lie is noted, for results that are made from them.
    """
    path, record = checkpoints.full or own.path, own.record
    if record is None:
        remember(own.fingerprint, own.directory)
    elif needs.full and not checkpoints.full:
        path = find_base(record, own.path)
    full = own if own.lies_at(path) else Checkpoint.open(path, device, exact=True)
    if full is not own:
        check_belongs(full.processor, full.model, texts=False)
        apart = full.tower.dimension != own.tower.dimension
        if apart and layered(own.model):
            raise UserError(
                f"{path} embeds into {full.tower.dimension} dimensions, {own.path} into "
                f"{own.tower.dimension}: a first stage is aligned to a tower of its own space"
            )
    if needs.full:
        remember(full.fingerprint, full.directory)
    return full


def image_side(processor: Processor) -> Processor:
    """What prepares images, of a processor that may prepare texts too."""
    images: Processor = getattr(processor, "image_processor", processor)
    return images
