"""The first stage that a rule makes cheaper, dense or smaller already, and the tower it stands for.

Stands before every rule that leaves out tokens or layers: opens the checkpoint, and the last stage
whose embeddings it is aligned to, and draws the calibration images.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from commands.published import published_name
from compress.calibrating.calibration import Calibration
from compress.calibrating.device import check_device
from compress.errors import UserError
from compress.making.checkpoints import find_base, remember
from compress.making.dense import Base, Ledger
from compress.making.keys import read_keys
from compress.making.options import AlignOptions
from compress.solving.alignment import LEAST_IMAGES, too_few
from corpora import load_corpus
from pruning_mechanism import Compression, Tower, check_belongs, load, load_processor, read_record
from pruning_mechanism.checkpoints.checkpoint import fingerprint

TARGET_FINGERPRINT = "target_fingerprint"
"""The entry of a record's settings that identifies another last stage than the base."""


@dataclass(frozen=True)
class Source:
    """A first stage to be made cheaper.

    `target` is the vision tower that it stands in front of, `target_processor` prepares that one's
    images, `target_path` is where that lies on this machine. `base` is what records call the
    checkpoint that everything is made from. `chain` says what has been done to it before, `seen`
    which images that was calibrated on. `settings` and `notes` are for the record of what is made.
    """

    path: str
    model: nn.Module
    processor: object
    target: Tower
    target_processor: object
    calibration: Calibration
    ledger: Ledger
    base: str
    base_fingerprint: str
    target_path: str
    chain: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, base: Base) -> "Source":
        """The dense checkpoint of an experiment, which is its own target."""
        own = base.model, base.processor
        return cls(
            base.path, *own, Tower.of(own[0]), own[1], base.calibration, base.ledger,
            published_name(base.path), fingerprint(base.path, base.model), base.path,
        )  # fmt: skip

    def targets(self) -> Tensor:
        """The target's embeddings of the calibration images, float32 [n, e], computed once."""
        return self.ledger.once("targets", self._targets)

    @torch.no_grad()
    def _targets(self) -> Tensor:
        images = replace(self.calibration, processor=self.target_processor)
        batches = images.batches("last stage")
        return torch.cat([self.target.embeddings(each.pixels).float().cpu() for each in batches])


def open_source(options: AlignOptions) -> Source:
    """Load a first stage and its target, and draw the calibration images.

    Raises:
        UserError, TowerError, CorpusError: an option names something that can't be used.
    """
    aligns = options.align == "ridge"
    if aligns and options.samples < LEAST_IMAGES:
        raise too_few(options.samples)
    check_device(options.device)
    model, processor = load(options.model, options.device), load_processor(options.model)
    check_belongs(processor, model, texts=False)
    record = read_record(options.model)
    own = record.base_fingerprint if record else fingerprint(options.model, model)
    last = _last_stage(options, record)
    target, target_processor = model, processor
    if not _same_place(last, options.model):
        target, target_processor = load(last, options.device), load_processor(last)
        check_belongs(target_processor, target, texts=False)
    _refuse_other_space(options, model, last, target)
    aligned_to = fingerprint(last, target)
    if record is None:
        remember(own, options.model)
    remember(aligned_to, last)
    corpus = load_corpus(
        options.corpus, options.corpus_dir, options.calibration_split, captions=False
    )
    calibration = Calibration.draw(
        corpus, options.samples, options.seed, processor, None, options.batch_size, options.device
    )
    if not len(calibration):
        raise UserError(f"{options.corpus} has no readable image")
    if aligns and len(calibration) < LEAST_IMAGES:
        raise too_few(len(calibration))
    settings, notes = {}, ()
    if aligned_to != own and options.target:
        settings = {TARGET_FINGERPRINT: aligned_to}
        notes = (f"aligned to {published_name(last)}, which isn't what it was made from",)
    return Source(
        options.model, model, processor, Tower.of(target), target_processor, calibration,
        Ledger(), published_name(record.base if record else options.model), own, last,
        record.steps if record else (), tuple(read_keys(options.model)), settings,
        notes if options.align != "none" else (),
    )  # fmt: skip


def _last_stage(options: AlignOptions, record: Compression | None) -> str:
    """Where the last stage lies; what nothing is aligned to, or measured beside, needs none."""
    if options.target:
        return options.target
    needed = options.align != "none" or options.measures_target
    return find_base(record, options.model) if record and needed else options.model


def _same_place(one: str, other: str) -> bool:
    return one == other or (Path(one).is_dir() and Path(one).resolve() == Path(other).resolve())


def _refuse_other_space(
    options: AlignOptions, model: nn.Module, last: str, target: nn.Module
) -> None:
    """Raise `UserError` if a last stage embeds into a space of other dimensions."""
    found, wanted = Tower.of(target).dimension, Tower.of(model).dimension
    if found != wanted:
        flag = "--target " if options.target else ""
        raise UserError(
            f"{flag}{last} embeds into {found} dimensions, {options.model} into {wanted}: a first "
            "stage is aligned to a tower of its own space"
        )
